/** What NFSv4.1 clients hold, through moves of their file server: with clients that are there, frozen, or dead. */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { StateCounts } from "../../bench/clients/engine.ts";
import { attempts, TooLate } from "../support/attempts.ts";
import { until } from "../support/until.ts";
import { type Lab, type LabNode, labIsPossible, openLab } from "./clients-lab.ts";
import { address, Mover } from "./clients-mover.ts";
import type { AgentCommand } from "./nfs41-agent.ts";

const agentPath = new URL("./nfs41-agent.ts", import.meta.url).pathname;
const recordsPath = new URL("../../hal/linux/ganesha/client-records.ts", import.meta.url).pathname;
/** With such a lease ganesha's own look is 10 s after its start (its REAPER_DELAY), and grace is longer than any test. */
const slow = { leaseSeconds: 180, graceSeconds: 270 };
const ownLookMs = 10_000;

interface Counts {
  readonly statuses: Record<string, number>;
  readonly state: StateCounts;
}

class Agent {
  readonly #child: ChildProcess;
  readonly #answers: ((value: unknown) => void)[] = [];

  constructor(lab: Lab, owner: string) {
    const words = ["-t", String(lab.clientPid), "-n", "--", process.execPath, agentPath];
    this.#child = spawn("nsenter", [...words, address, "/vol1", owner], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    if (this.#child.stdout === null) throw new Error("no output");
    createInterface({ input: this.#child.stdout }).on("line", (line) => {
      this.#answers.shift()?.((JSON.parse(line) as { value: unknown }).value);
    });
  }

  ask(command: AgentCommand): Promise<unknown> {
    return new Promise((resolve) => {
      this.#answers.push(resolve);
      this.#child.stdin?.write(`${JSON.stringify(command)}\n`);
    });
  }

  async counts(): Promise<Counts> {
    return (await this.ask({ op: "counts" })) as Counts;
  }

  freeze(): void {
    this.#child.kill("SIGSTOP");
  }

  thaw(): void {
    this.#child.kill("SIGCONT");
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.kill("SIGKILL");
    await ended;
  }
}

describe.runIf(labIsPossible)("what NFSv4.1 clients hold", () => {
  let lab: Lab;
  let a: LabNode;
  let b: LabNode;
  let agents: Agent[];

  beforeEach(async () => {
    lab = await openLab();
    a = await lab.addNode("a");
    b = await lab.addNode("b");
    agents = [];
  });
  afterEach(async () => {
    for (const agent of agents) await agent.kill();
    await lab?.close();
  });

  const client = (owner: string): Agent => {
    const agent = new Agent(lab, owner);
    agents.push(agent);
    return agent;
  };
  const attempt = (agent: Agent) => agent.ask({ op: "attempt", path: "file" });
  /** The first word that is not "wait". */
  const decision = async (agent: Agent) => {
    let word: unknown = "NFS4ERR_GRACE";
    await until("grace is over", async () => {
      word = await attempt(agent);
      return word !== "NFS4ERR_GRACE";
    });
    return word;
  };
  /** Its server is another one, and what it held was taken over. */
  const hasReturned = async (agent: Agent, locksReclaimed: number) => {
    await agent.ask({ op: "write", path: "file" });
    const { state } = await agent.counts();
    expect(state).toMatchObject({ locksReclaimed, locksLost: 0, openFilesLost: 0 });
  };
  const graceOf = async (mover: Mover, node: LabNode) => (await mover.state(node)).grace;

  it("nobody waits where nobody is recorded; else grace ends when the last is back, before ganesha looks by itself", async () => {
    const mover = new Mover(lab, slow);
    await mover.takeOver(a);
    expect(await graceOf(mover, a)).toMatchObject({ active: false, recorded: 0 });
    const [one, two] = [client("one"), client("two")];
    await one.ask({ op: "hold", path: "file" });
    await two.ask({ op: "hold", path: "other" });
    let reclaimed = 0;
    await attempts(3, async () => {
      for (const each of [one, two]) each.freeze();
      await mover.stop(a);
      const startedAt = performance.now();
      await mover.serve(a);
      await until("it tells of both", async () => (await graceOf(mover, a)).recorded === 2);
      one.thaw();
      reclaimed += 1;
      await hasReturned(one, reclaimed);
      expect(await graceOf(mover, a)).toMatchObject({ active: true });
      two.thaw();
      if (performance.now() - startedAt > ownLookMs / 2) throw new TooLate("both were late");
      await until("grace ends", async () => !(await graceOf(mover, a)).active);
      const tookMs = performance.now() - startedAt;
      console.log(`grace ended ${tookMs.toFixed(0)} ms after the order to start`);
      expect(tookMs).toBeLessThan(ownLookMs);
      expect(await graceOf(mover, a)).toMatchObject({ recorded: 2, reclaimed: 2 });
    });
    expect(mover.records(a, "clients-before")).toEqual([]);
    expect(mover.records(a, "clients")).toHaveLength(2);
  });

  it("records are kept synchronously as soon as anybody comes, but not while they are read", async () => {
    const mover = new Mover(lab, slow);
    const flags = () =>
      ["clients", "clients-before"].map((folder) =>
        /D/.test(a.run("lsattr", "-d", `${mover.mountPoint}/.dyad/${folder}`).split(" ")[0] ?? ""),
      );
    await mover.takeOver(a);
    expect(flags()).toEqual([false, false]);
    const one = client("one");
    await one.ask({ op: "hold", path: "file" });
    expect(flags()).toEqual([true, true]);
    one.freeze();
    await mover.stop(a);
    await mover.serve(a);
    expect(flags()).toEqual([false, false]);
    one.thaw();
    await hasReturned(one, 1);
    expect(flags()).toEqual([true, true]);
    // A server that ended before anybody came, and one that would not put the flag back.
    one.freeze();
    await mover.stop(a);
    await mover.serve(a);
    await mover.stop(a);
    const readied = `(await import("${recordsPath}")).readyClientRecords("${mover.mountPoint}/.dyad", `;
    const script = `${readied}{ hasGraceEnd: false, log: console.error }).then(console.log)`;
    expect(a.run(process.execPath, "--input-type=module", "-e", script)).toContain("ok: true");
    expect(flags()).toEqual([true, true]);
    expect(mover.records(a, "clients")).toHaveLength(1);
  });

  it("a lock is held across a move: who wants it waits for its holder to reclaim it, and is refused until it is given back", async () => {
    const mover = new Mover(lab, slow);
    await mover.takeOver(a);
    const [holder, rival] = [client("holder"), client("rival")];
    await holder.ask({ op: "hold", path: "file" });
    expect(await attempt(rival)).toBe("NFS4ERR_DENIED");
    holder.freeze();
    await mover.release(a);
    await mover.takeOver(b);
    // The rival has a session with the new server, and all the time in the world.
    for (let i = 0; i < 5; i += 1) expect(await attempt(rival)).toBe("NFS4ERR_GRACE");
    holder.thaw();
    expect(await decision(rival)).toBe("NFS4ERR_DENIED");
    await hasReturned(holder, 1);
    expect(await attempt(rival)).toBe("NFS4ERR_DENIED");
    await holder.ask({ op: "leave" });
    expect(await attempt(rival)).toBe("NFS4_OK");
    // Who has taken its leave is waited for by nobody.
    expect(mover.records(b, "clients")).toHaveLength(1);
  });

  it("whoever was waited for when a server ended is waited for by the next ones, and counted once", async () => {
    const mover = new Mover(lab, slow);
    await mover.takeOver(a);
    const [holder, other] = [client("holder"), client("other")];
    await holder.ask({ op: "hold", path: "file" });
    await other.ask({ op: "hold", path: "other" });
    holder.freeze();
    // Two servers end before it is back. The other one is with each of them, in time to be recorded anew while its old record is there.
    for (const returned of [1, 2]) {
      await mover.stop(a);
      await mover.serve(a);
      await other.ask({ op: "write", path: "other" });
      const { state } = await other.counts();
      expect(state).toMatchObject({ locksReclaimed: returned, locksLost: 0 });
      expect(mover.records(a, "clients-before")).toHaveLength(2);
    }
    await mover.release(a);
    await mover.takeOver(b);
    expect(await graceOf(mover, b)).toMatchObject({ active: true });
    expect(await attempt(client("rival"))).toBe("NFS4ERR_GRACE");
    holder.thaw();
    await hasReturned(holder, 1);
    await until("grace ends", async () => !(await graceOf(mover, b)).active);
    expect(await graceOf(mover, b)).toMatchObject({ recorded: 2, reclaimed: 2 });
  });

  it("one who returns twice within a grace, as another life of its own, does not stand for one who is away", async () => {
    const mover = new Mover(lab, slow);
    await mover.takeOver(a);
    const [holder, other, restarts] = [client("holder"), client("other"), client("restarts")];
    await holder.ask({ op: "hold", path: "file" });
    await other.ask({ op: "hold", path: "other" });
    expect(await attempt(restarts)).toBe("NFS4ERR_DENIED");
    for (const each of [holder, other]) each.freeze();
    await mover.stop(a);
    await mover.serve(a);
    expect(await attempt(restarts)).toBe("NFS4ERR_GRACE");
    await restarts.kill();
    const again = client("restarts");
    expect(await attempt(again)).toBe("NFS4ERR_GRACE");
    other.thaw();
    await until("both are counted", async () => (await graceOf(mover, a)).reclaimed >= 2);
    expect(await graceOf(mover, a)).toMatchObject({ active: true, recorded: 3, reclaimed: 2 });
    expect(await attempt(again)).toBe("NFS4ERR_GRACE");
    holder.thaw();
    expect(await decision(again)).toBe("NFS4ERR_DENIED");
    await hasReturned(holder, 1);
  });

  it("one who is dead is waited for as long as its lease could last, and then forgotten", async () => {
    const mover = new Mover(lab, { leaseSeconds: 2, graceSeconds: 2 });
    await mover.takeOver(a);
    const [holder, rival] = [client("holder"), client("rival")];
    await holder.ask({ op: "hold", path: "file" });
    expect(await attempt(rival)).toBe("NFS4ERR_DENIED");
    await mover.release(a);
    await holder.kill();
    await mover.takeOver(b);
    expect(await decision(rival)).toBe("NFS4_OK");
    expect(await graceOf(mover, b)).toMatchObject({ active: false });
    expect(mover.records(b, "clients-before")).toEqual([]);
    expect(mover.records(b, "clients")).toEqual([expect.stringContaining("rival")]);
    // The next server waits for nobody but the rival.
    await mover.stop(b);
    await mover.serve(b);
    await until("grace ends", async () => !(await graceOf(mover, b)).active);
    expect(await graceOf(mover, b)).toMatchObject({ recorded: 1 });
  });
});
