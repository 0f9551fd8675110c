/** One disk on a target that does what a test tells it: what the tests of the initiator share. */
import { afterEach, beforeEach, expect, vi } from "vitest";
import { SenseKey } from "../../firmware-ts/wire/scsi/codes.ts";
import { IscsiDisk } from "../../hal/block/iscsi/disk.ts";
import type { IscsiDiskTiming } from "../../hal/block/iscsi/disk-timing.ts";
import { limitsMs, patientDisk } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { type Received, ScriptedTarget, serial } from "./initiator-target.ts";

/** What passes in a test passes in a time that the test makes (`stopTime`). */
export const timing: Partial<IscsiDiskTiming> = {
  ...patientDisk,
  reconnectFirstMs: 2,
  reconnectMaxMs: 10,
};

export let target: ScriptedTarget;
export let disk: IscsiDisk;
export let events: string[];
const disks: IscsiDisk[] = [];

/** Opens the disk; with `grant` every session is let through as soon as it is there. */
export async function open(options: { grant?: boolean; timing?: Partial<IscsiDiskTiming> } = {}) {
  const { grant = true } = options;
  events = [];
  const made = new IscsiDisk({
    ...{ host: "127.0.0.1", port: target.port, targetName: "iqn.2026-11.test:t" },
    ...{ initiatorName: "iqn.2026-11.test:i", isid: "4000d1ad0001", serial },
    timing: { ...timing, ...options.timing },
    handlers: {
      up: (session) => {
        events.push(`up ${session}`);
        if (grant) queueMicrotask(() => made.grant(session));
      },
      down: (reason) => events.push(`down ${reason}`),
      fenced: (reason) => events.push(`fenced ${reason}`),
    },
  });
  disks.push(made);
  disk = made;
  expect(await made.whenUp(limitsMs.condition)).toBe(true);
  return made;
}

/**
 * From now on until the test ends, the initiator's time passes only by `vi.advanceTimersByTime`: a machine that stalls lets no limit
 * pass. Wait with `until` then: `expect.poll` would advance it.
 */
export function stopTime(): void {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
}

/** Commands of the test, as they come. */
export function inbox(): { next: () => Promise<Received>; seen: Received[] } {
  const seen: Received[] = [];
  let taken = 0;
  target.onCommand = (received) => seen.push(received);
  const next = async () => {
    await until("a command", () => seen.length > taken);
    const received = seen[taken];
    taken += 1;
    if (received === undefined) throw new Error("no command");
    return received;
  };
  return { next, seen };
}

export const unit = (code: number) => ({ key: SenseKey.unitAttention, code });

beforeEach(async () => {
  target = await ScriptedTarget.start();
});
afterEach(async () => {
  vi.useRealTimers();
  await Promise.all(disks.splice(0).map((one) => one.close()));
  await target.close();
});
