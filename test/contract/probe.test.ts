import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { monotonicMs } from "../../bench/clients/protocol.ts";
import {
  buildProbePrograms,
  type ProbeEvent,
  type ProbePrograms,
  type Running,
  startEcho,
  startProbe,
} from "../../bench/probe/programs.ts";
import { attempts, TooLate } from "../support/attempts.ts";
import { until } from "../support/until.ts";
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
  const drop = (node: LabNode) => node.run("ip", "addr", "flush", "dev", "eth0");
  const pointAt = (node: LabNode) => {
    const mac = /link\/ether (\S+)/.exec(node.run("ip", "link", "show", "eth0"))?.[1] ?? "";
    lab.runInClient("ip", "neigh", "replace", address, "lladdr", mac, "dev", "br0");
  };

  /** A prober, what it said, and a way to wait for what it will say. */
  const probe = () => {
    const events: ProbeEvent[] = [];
    const options = { addresses: [address], port, gapMs: 5, intervalMs: 1 };
    const running = startProbe(programs, inside(lab.clientPid), options, (event) => {
      events.push(event);
    });
    onTestFinished(() => running.end());
    const ticksBy = (owner: string) =>
      events.filter((each) => each.t === "tick" && each.owner === owner && each.gapMs < 50).length;
    return {
      events,
      running,
      ticks: () => events.filter((each) => each.t === "tick"),
      answeredBy: (owner: string) => {
        const before = ticksBy(owner);
        return until(`${owner} answers`, () => ticksBy(owner) > before + 1);
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
      // Bound before anybody has the address, as in a standby controller; and as prompt as the probe itself.
      const prompt = [...inside(node.pid), "chrt", "-f", "15"];
      echoes.push(await startEcho(programs, prompt, port, name, [{ address }]));
    }
  });
  afterAll(async () => {
    for (const echo of echoes) await echo.end();
    await lab?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  afterEach(() => {
    for (const node of [a, b]) drop(node);
  });

  it("tells a move of the address as one gap and one switch, and its length", async () => {
    await attempts(10, async () => {
      drop(b);
      hold(a);
      pointAt(a);
      const { events, running, answeredBy } = probe();
      await answeredBy("a");
      const silentFrom = monotonicMs();
      drop(a);
      const goneMs = monotonicMs();
      await new Promise((resolve) => setTimeout(resolve, 100));
      const backMs = monotonicMs();
      hold(b);
      pointAt(b);
      const silentTo = monotonicMs();
      await answeredBy("b");
      await running.end();

      const switches = events.filter((each) => each.t === "switch");
      expect(switches).toMatchObject([{ from: "a", to: "b" }]);
      const gaps = events.filter((each) => each.t === "gap" && each.before !== each.after);
      expect(gaps.length).toBe(1);
      const [gap] = gaps;
      if (gap?.t !== "gap") throw new Error("no gap");
      // The gap is the probe's own clock's: it asked last before the address was gone, and next when it was to come back.
      expect(gap.fromMs).toBeLessThan(goneMs);
      expect(gap.toMs).toBeGreaterThan(backMs);
      expect(gap.ms).toBeGreaterThan(backMs - goneMs);
      expect(gap.toMs - gap.fromMs).toBeCloseTo(gap.ms, 1);
      const end = events.at(-1);
      expect(end).toMatchObject({ t: "end", doubles: 0, owner: "b" });
      // And is not longer than it was, give or take what it did not send.
      const early = silentFrom - gap.sendHoleMs - 5 - gap.fromMs;
      const late = gap.toMs - (silentTo + gap.sendHoleMs + 200);
      if (early > 0 || late > 0) throw new TooLate("somebody who answers was held up");
    });
  });

  it("sends about a thousand questions a second and has each answered when nothing happens", async () => {
    hold(a);
    pointAt(a);
    await attempts(10, async () => {
      const { running, ticks } = probe();
      await until("five ticks", () => ticks().length >= 5);
      const asked = () => ticks().map(({ sent }) => sent);
      const answered = () => ticks().map((tick) => tick.answered);
      // What was asked before a tick is answered before the next one.
      await until("answers", () => (answered().at(-1) ?? 0) >= (asked().at(-2) ?? Infinity));
      await running.end();
      const inEightTenths = (asked()[4] ?? 0) - (asked()[0] ?? 0);
      expect(inEightTenths).toBeLessThan(850);
      if (inEightTenths < 700) throw new TooLate("the probe was held up");
    });
  });

  it("tells when two controllers answer at once", async () => {
    hold(a);
    hold(b);
    pointAt(a);
    const { events, running, answeredBy } = probe();
    await answeredBy("a");
    const macOf = (node: LabNode) =>
      /link\/ether (\S+)/.exec(node.run("ip", "link", "show", "eth0"))?.[1] ?? "";
    const neighbour = (node: LabNode) =>
      `neigh replace ${address} lladdr ${macOf(node)} dev br0 nud permanent\n`;
    // A stale owner answers for some milliseconds while the other one owns the address: the time that these lines take.
    const batch = join(lab.directory, "batch");
    writeFileSync(batch, neighbour(b).repeat(300) + neighbour(a));
    for (let i = 0; i < 50 && !events.some((each) => each.t === "double"); i += 1) {
      lab.runInClient("ip", "-batch", batch);
      await answeredBy("a");
    }
    await until("told", () => events.some((each) => each.t === "double"));
    await running.end();
    expect(events.find((each) => each.t === "double")).toMatchObject({ by: "b", owner: "a" });
    const end = events.at(-1);
    expect(end?.t === "end" && end.doubles).toBeGreaterThan(0);
  });
});
