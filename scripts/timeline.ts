/**
 * `node scripts/timeline.ts JOURNAL… [--last MS]`: the journals of both controllers as one story, in milliseconds of the clock that
 * they share on the bench: what each decided and when each work ended. On machines of their own the clocks differ; give one
 * journal at a time there.
 */
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import type { Effect } from "../firmware-ts/core/effects.ts";
import type { ControllerEvent } from "../firmware-ts/core/events.ts";
import { readJournalLine } from "../firmware-ts/daemon/journal.ts";

interface Moment {
  readonly nowMs: number;
  readonly who: string;
  readonly what: string;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { last: { type: "string" } },
});

function wordsOfEvent(event: ControllerEvent): string | undefined {
  switch (event.kind) {
    case "tick":
      return undefined;
    case "done":
      return `◀ ${event.token} ${event.outcome.ok ? "done" : event.outcome.fault.code}`;
    case "reserved":
      return `◀ ${event.token} ${event.answer.status}`;
    case "seen":
      return `seen ${event.observation.kind}`;
    default:
      return event.kind;
  }
}

function wordsOfEffect(effect: Effect): string | undefined {
  switch (effect.kind) {
    case "work":
      return `▶ ${effect.work.op}`;
    case "reserve":
      return `▶ ${effect.command.op} ${effect.serial}`;
    case "gate":
      return `▶ ${effect.command.kind}`;
    case "report":
      return effect.report.message;
    case "mandate":
      return effect.mandate.message ? `says message ${effect.mandate.message.id}` : undefined;
    case "persist":
      return `▶ keep epoch ${effect.record.epoch}`;
    default:
      return undefined;
  }
}

function* momentsOf(path: string): Generator<Moment> {
  const who = basename(path).slice(0, 1);
  for (const text of readFileSync(path, "utf8").split("\n")) {
    if (text === "") continue;
    const line = readJournalLine(text) as { event?: ControllerEvent; effects?: Effect[] };
    if (!line.event) continue;
    const words = [wordsOfEvent(line.event), ...(line.effects ?? []).map(wordsOfEffect)];
    const what = words.filter((each) => each !== undefined).join("; ");
    if (what !== "") yield { nowMs: line.event.nowMs, who, what };
  }
}

const moments = positionals.flatMap((path) => [...momentsOf(path)]);
moments.sort((one, other) => one.nowMs - other.nowMs);
const endMs = moments.at(-1)?.nowMs ?? 0;
const fromMs = values.last === undefined ? 0 : endMs - Number(values.last);
for (const { nowMs, who, what } of moments)
  if (nowMs >= fromMs) console.log(`${nowMs.toFixed(1).padStart(12)} ${who} ${what}`);
