/** Nothing fails, the machine is busy: nobody may be taken over. */
import { setTimeout as delay } from "node:timers/promises";
import { BenchError } from "../world/error.ts";
import { monotonicMs } from "../world/exec.ts";
import { controllerIds } from "../world/layout.ts";
import { type MemoryReadings, MemoryWatch } from "../world/memory.ts";
import type { World } from "../world/world.ts";
import { tenth } from "./figures.ts";
import type { Stage } from "./one-run.ts";
import { badReads, type ClientCounts, complaint, countsOf, memoryProblems } from "./result.ts";

export interface QuietResult extends ClientCounts {
  readonly test: "quiet";
  readonly minutes: number;
  readonly stress: boolean;
  /** Rises of an epoch and changes of who answers: each would be a takeover that nobody needed. */
  readonly falseTakeovers: number;
  /** How often a link was red, by controller and link: how near it came. */
  readonly redLinks: { readonly [link: string]: number };
  readonly longestOutageMs: number;
  readonly longestReadGapMs: number;
  readonly longestWriteGapMs: number;
  readonly writesPerS: number;
  readonly doubleAnswers: number;
  /** The highest that was seen, read every second. */
  readonly daemonMemoryMb: MemoryReadings;
  readonly problems: readonly string[];
}

const lookIntervalMs = 1000;
const stressors = "4";

/** Runs for so many minutes, under `stress-ng --cpu 4` if asked for, with the clients of the stage at work. */
export async function quiet(
  stage: Stage,
  minutes: number,
  stress: boolean,
  progress: (text: string) => void,
): Promise<QuietResult> {
  const { world, watch, clients } = stage;
  for (const client of clients) client.mark("quiet");
  const before = await world.statuses();
  const beganAtMs = monotonicMs();
  const endAtMs = beganAtMs + minutes * 60_000;
  const load = stress
    ? world.processes.start({
        role: "stress",
        cgroup: world.infra,
        argv: ["stress-ng", "--cpu", stressors, "--timeout", `${Math.ceil(minutes * 60) + 60}s`],
      })
    : undefined;
  const reds = new RedLinks();
  const memory = new MemoryWatch(world.machines);
  while (monotonicMs() < endAtMs) {
    await delay(lookIntervalMs, undefined, { signal: world.signal });
    if (load && !load.alive())
      throw new BenchError("worldBroken", "stress-ng", `see ${world.processes.logPath("stress")}`);
    await reds.look(world);
    memory.look();
    const left = Math.round((endAtMs - monotonicMs()) / 1000);
    if (left > 0 && left % 30 === 0) progress(`${left} s left, ${JSON.stringify(reds.counts)}`);
  }
  const endedAtMs = monotonicMs();
  load?.child.kill("SIGTERM");
  await load?.ended;
  const after = await world.statuses();
  const reports = await Promise.all(clients.map((client) => client.report(60_000, world.signal)));
  const seen = watch.seen(beganAtMs, endedAtMs);
  const risen = controllerIds.map(
    (id) => (after[id]?.epoch ?? Infinity) - (before[id]?.epoch ?? 0),
  );
  const switches = Object.values(seen.switches).reduce((sum, each) => sum + each, 0);
  const falseTakeovers = Math.max(...risen) + switches;
  const counts = countsOf(reports);
  const longest = (pick: "read" | "write") =>
    Math.max(...reports.flatMap((r) => r.engines.map((e) => e[pick].longestGapMs)));
  const writes = reports.flatMap((r) => r.engines.map((e) => e.write.operations));
  return {
    test: "quiet",
    minutes,
    stress,
    falseTakeovers,
    redLinks: reds.counts,
    longestOutageMs: tenth(seen.outageMs),
    longestReadGapMs: tenth(longest("read")),
    longestWriteGapMs: tenth(longest("write")),
    writesPerS: Math.round((writes.reduce((a, b) => a + b, 0) * 1000) / (endedAtMs - beganAtMs)),
    doubleAnswers: seen.doubleAnswers,
    daemonMemoryMb: memory.highest,
    ...counts,
    problems: [
      ...complaint("false takeovers", falseTakeovers),
      ...complaint("double answers", seen.doubleAnswers),
      ...complaint("acknowledged writes lost", counts.lostAckedWrites),
      ...complaint("stale, rolled back, phantom or corrupt reads", badReads(counts)),
      ...complaint("open files lost", counts.openFilesLost),
      ...complaint("locks lost", counts.locksLost),
      ...complaint("clients that could not read back", reports.filter((r) => !r.verified).length),
      ...memoryProblems(memory.highest),
    ],
  };
}

/** Counts `link.red` among the events of both controllers, each event once. */
class RedLinks {
  readonly counts: Record<string, number> = {};
  readonly #newest = { a: 0, b: 0 };

  async look(world: World): Promise<void> {
    for (const id of controllerIds) {
      const events = await world.apis[id].events(this.#newest[id]).catch(() => []);
      for (const event of events) {
        this.#newest[id] = Math.max(this.#newest[id], event.sequence);
        if (event.code !== "link.red") continue;
        const name = `${id}: ${event.message}`;
        this.counts[name] = (this.counts[name] ?? 0) + 1;
      }
    }
  }
}
