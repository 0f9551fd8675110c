/**
 * `node scripts/golden-journals.ts [FAULT…]`: takes golden cases anew, of every fault of the bench or of those named: one run of the fault in a
 * world of its own, and of it the journals of both controllers, from their first boot to the mended pair (test/golden/journals). Root.
 *
 * Nothing is chosen by what was decided, but for the case that a split must have: either controller may win it, and the story has it that b
 * does. Exit status 1 when a run was not as it must be; nothing is kept of it then.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expectations } from "../bench/campaign/expectations.ts";
import { openStage } from "../bench/campaign/failover.ts";
import { oneRun, type Stage } from "../bench/campaign/one-run.ts";
import type { Fault } from "../bench/faults/fault.ts";
import { faultNamed, faults } from "../bench/faults/index.ts";
import { explainError } from "../bench/world/error.ts";
import { monotonicMs, waitFor } from "../bench/world/exec.ts";
import { controllerIds, repoDir } from "../bench/world/layout.ts";
import { signal } from "../bench/world/processes.ts";
import type { World } from "../bench/world/world.ts";
import { readJournalLine } from "../firmware-ts/daemon/journal.ts";
import type { ControllerId } from "../firmware-ts/schema/ids.ts";

const place = join(repoDir, "test/golden/journals");
const prefix = "gold";
/** A golden case is read by people, too. */
const bytesMax = 60_000;
/** Either controller may win a split: more tries than this would mean that one never does. */
const triesMax = 8;
/** Both leave one after the other, and the first may have to hand over. */
const leaveDeadlineMs = 20_000;

process.env.NODE_COMPILE_CACHE ??= join(repoDir, "work", "compile-cache");

type Journals = { readonly [who in ControllerId]: string };

/** One run of a fault. Undefined when it was good, but not the case that is wanted. */
async function take(fault: Fault): Promise<Journals | undefined> {
  // Clients that do no more than to be there: on a machine without time to spare, gates lapse that the story knows nothing of.
  const stage = await openStage({ prefix, clientCount: 2, engines: "nfs3", paceMs: 50 });
  try {
    return await takeOn(stage, fault);
  } catch (error) {
    console.error(`logs: ${stage.world.keepLogs()}`);
    throw error;
  } finally {
    await stage.world.stop();
  }
}

async function takeOn(stage: Stage, fault: Fault): Promise<Journals | undefined> {
  const expected = expectations[fault.name];
  if (!expected) throw new Error(`nothing is expected of ${fault.name}`);
  const { problems, winner, doubleAnswers, unexpectedTakeovers } = await oneRun(
    stage,
    fault,
    expected,
    fault.name,
  );
  const endMs = monotonicMs();
  if (problems.length > 0 || doubleAnswers > 0 || unexpectedTakeovers > 0)
    throw new Error(
      `${fault.name}: ${JSON.stringify({ problems, doubleAnswers, unexpectedTakeovers })}`,
    );
  console.error(`${fault.name}: ${winner} serves`);
  await endFirmware(stage.world);
  const journals = { a: journalOf(stage.world, "a", endMs), b: journalOf(stage.world, "b", endMs) };
  return fault.name === "split" && winner !== "b" ? undefined : journals;
}

/** A journal is written in the background: only a controller that has ended has written all of it. */
async function endFirmware(world: World): Promise<void> {
  for (const who of controllerIds) {
    const daemon = world.daemon(who);
    world.forsakeDaemon(who);
    if (!daemon) continue;
    signal(daemon.pid, "SIGTERM");
    await waitFor(`end of ${who}`, () => !daemon.alive(), { deadlineMs: leaveDeadlineMs });
  }
}

/** The lines of a journal up to the end of the run, as they are. */
function journalOf(world: World, who: ControllerId, endMs: number): string {
  const path = join(world.machines[who].paths.stateDir, "journal.jsonl");
  const lines = readFileSync(path, "utf8").split("\n");
  const kept = lines.filter((line) => line !== "" && timeOf(line) <= endMs);
  const text = `${kept.join("\n")}\n`;
  if (text.length > bytesMax) throw new Error(`the journal of ${who} has ${text.length} bytes`);
  return text;
}

function timeOf(line: string): number {
  const { event } = readJournalLine(line) as { event?: { nowMs: number } };
  return event?.nowMs ?? 0;
}

async function takeAnew(fault: Fault): Promise<void> {
  for (let i = 0; i < triesMax; i += 1) {
    const journals = await take(fault);
    if (!journals) continue;
    mkdirSync(place, { recursive: true });
    for (const who of controllerIds)
      writeFileSync(join(place, `${fault.name}-${who}.jsonl`), journals[who]);
    return;
  }
  throw new Error(`${fault.name}: not the case that is wanted in ${triesMax} runs`);
}

try {
  const names = process.argv.slice(2);
  const chosen = names.length === 0 ? faults : names.map(faultNamed);
  for (const fault of chosen) await takeAnew(fault);
} catch (error) {
  console.error(`golden-journals: ${explainError(error)}`);
  process.exitCode = 1;
}
process.exit();
