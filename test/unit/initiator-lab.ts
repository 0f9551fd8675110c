/** One disk on a target that does what a test tells it: what the tests of the initiator share. */
import { afterEach, beforeEach, expect, vi } from "vitest";
import { SenseKey } from "../../firmware-ts/wire/scsi/codes.ts";
import { IscsiDisk, type IscsiDiskTiming } from "../../hal/block/iscsi/disk.ts";
import { type Received, ScriptedTarget, serial } from "./initiator-target.ts";

export const timing: Partial<IscsiDiskTiming> = {
  commandTimeoutMs: 2000,
  ioTimeoutMs: 4000,
  loginTimeoutMs: 500,
  keepaliveMs: 5000,
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
  expect(await made.whenUp(3000)).toBe(true);
  return made;
}

/** Commands of the test, as they come. */
export function inbox(): { next: () => Promise<Received>; seen: Received[] } {
  const seen: Received[] = [];
  let taken = 0;
  target.onCommand = (received) => seen.push(received);
  const next = async () => {
    await vi.waitFor(() => expect(seen.length).toBeGreaterThan(taken), {
      interval: 1,
      timeout: 3000,
    });
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
  await Promise.all(disks.splice(0).map((one) => one.close()));
  await target.close();
});
