/**
 * `node scripts/scenario-from-journal.ts a=JOURNAL [b=JOURNAL] [--last MS]`: what befell a pair in the field, as a script for the simulator's
 * world (test/scenarios). It is a draft: orders for what the journals show or imply, in the names of that world, to be read, cut and
 * given its trace (`UPDATE=1 npx vitest run test/scenarios`). With one journal only, what happened to the other controller is a guess.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { readJournalLine } from "../firmware-ts/daemon/journal.ts";
import { draftScenario, type JournalEntry, type JournalOf } from "./support/scenario-draft.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { last: { type: "string" } },
});

function readJournal(argument: string): JournalOf {
  const [who, path] = argument.split("=");
  if ((who !== "a" && who !== "b") || !path) throw new Error(`expected a=FILE, found ${argument}`);
  const entries: JournalEntry[] = [];
  for (const text of readFileSync(path, "utf8").split("\n")) {
    if (text === "") continue;
    try {
      entries.push(readJournalLine(text) as JournalEntry);
    } catch {
      // A line that was cut short: the process ended while it wrote.
    }
  }
  return { who, entries };
}

try {
  const lastMs = values.last === undefined ? undefined : Number(values.last);
  console.log(draftScenario(positionals.map(readJournal), lastMs));
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  console.error("usage: scenario-from-journal.ts a=JOURNAL [b=JOURNAL] [--last MS]");
  process.exitCode = 2;
}
