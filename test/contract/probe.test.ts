import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { monotonicMs } from "../../bench/clients/protocol.ts";
import {
  buildProbePrograms,
  type ProbeEvent,
  type ProbePrograms,
  type Running,
  startEcho,
  startProbe,
} from "../../bench/probe/programs.ts";
import { type Lab, type LabNode, labIsPossible, openLab } from "./clients-lab.ts";

const address = "10.9.0.50";
const port = 7000;

describe.runIf(labIsPossible)("address probe", () => {
  let directory: string;
  let programs: ProbePrograms;
  let lab: Lab;
  let a: LabNode;
  let b: LabNode;
  const echoes: Running[] = [];
  const inside = (pid: number) => ["nsenter", "-t", String(pid), "-n", "--"];
  const hold = (node: LabNode) => node.run("ip", "addr", "replace", `${address}/24`, "dev", "eth0");
  const drop = (node: LabNode) => node.run("ip", "addr", "del", `${address}/24`, "dev", "eth0");
  const pointAt = (node: LabNode) => {
    const mac = /link\/ether (\S+)/.exec(node.run("ip", "link", "show", "eth0"))?.[1] ?? "";
    lab.runInClient("ip", "neigh", "replace", address, "lladdr", mac, "dev", "br0");
  };

  /** A prober, what it said, and a way to wait for what it will say. */
  const probe = () => {
    const events: ProbeEvent[] = [];
    const running = startProbe(programs, inside(lab.clientPid), address, port, (event) => {
      events.push(event);
    });
    const until = async (condition: () => boolean) => {
      const startedAt = performance.now();
      while (!condition()) {
        if (performance.now() - startedAt > 10_000) throw new Error("the probe did not say it");
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    };
    const ticksBy = (owner: string) =>
      events.filter((each) => each.t === "tick" && each.owner === owner && each.gapMs < 50).length;
    return {
      events,
      running,
      until,
      answeredBy: (owner: string) => {
        const before = ticksBy(owner);
        return until(() => ticksBy(owner) > before + 1);
      },
    };
  };

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), "dyad-probe-"));
    programs = buildProbePrograms(directory);
    lab = await openLab();
    a = await lab.addNode("a");
    b = await lab.addNode("b");
    for (const [node, name] of [
      [a, "a"],
      [b, "b"],
    ] as const) {
      // Bound before anybody has the address, as in a standby controller.
      echoes.push(await startEcho(programs, inside(node.pid), address, port, name));
    }
  });
  afterAll(async () => {
    for (const echo of echoes) await echo.end();
    await lab?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  it("tells a move of the address as one gap and one switch, and its length", async () => {
    hold(a);
    pointAt(a);
    const { events, running, answeredBy } = probe();
    await answeredBy("a");
    const silentFrom = monotonicMs();
    drop(a);
    await new Promise((resolve) => setTimeout(resolve, 100));
    hold(b);
    pointAt(b);
    const silentTo = monotonicMs();
    await answeredBy("b");
    await running.end();
    drop(b);

    const switches = events.filter((each) => each.t === "switch");
    expect(switches).toMatchObject([{ from: "a", to: "b" }]);
    const gaps = events.filter((each) => each.t === "gap" && each.before !== each.after);
    expect(gaps.length).toBe(1);
    const [gap] = gaps;
    if (gap?.t !== "gap") throw new Error("no gap");
    expect(gap.ms).toBeGreaterThan(95);
    // The probe's own clock: it asked last before the address went, and next when it was back, give or take what it did not send.
    expect(gap.fromMs).toBeGreaterThan(silentFrom - gap.sendHoleMs - 5);
    expect(gap.toMs).toBeLessThan(silentTo + gap.sendHoleMs + 200);
    expect(gap.toMs - gap.fromMs).toBeCloseTo(gap.ms, 1);
    const end = events.at(-1);
    expect(end).toMatchObject({ t: "end", doubles: 0, owner: "b" });
  });

  it("sends about a thousand questions a second and has each answered when nothing happens", async () => {
    hold(a);
    pointAt(a);
    const { events, running, until } = probe();
    await until(() => events.filter((each) => each.t === "tick").length >= 5);
    await running.end();
    drop(a);
    const end = events.at(-1);
    if (end?.t !== "end") throw new Error("no end");
    expect(end.sent).toBeGreaterThan(800);
    expect(end.sent).toBeLessThan(1300);
    // The last few may still be on their way.
    expect(end.answered).toBeGreaterThanOrEqual(end.sent - 20);
  });

  it("tells when two controllers answer at once", async () => {
    hold(a);
    hold(b);
    pointAt(a);
    const { events, running, answeredBy, until } = probe();
    await answeredBy("a");
    // A stale owner answers for a moment while the other one owns the address.
    for (let i = 0; i < 20 && !events.some((each) => each.t === "double"); i += 1) {
      pointAt(b);
      pointAt(a);
      await answeredBy("a");
    }
    await until(() => events.some((each) => each.t === "double"));
    await running.end();
    drop(a);
    drop(b);
    expect(events.find((each) => each.t === "double")).toMatchObject({ by: "b", owner: "a" });
    const end = events.at(-1);
    expect(end?.t === "end" && end.doubles).toBeGreaterThan(0);
  });
});
