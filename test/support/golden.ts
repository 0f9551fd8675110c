/** Golden cases: journals that real runs of the bench left, one for each fault and controller (scripts/golden-journals.ts takes them). */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readJournalLine } from "../../firmware-ts/daemon/journal.ts";
import { type Config, configSchema } from "../../firmware-ts/schema/config.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { Pair } from "../../hal/sim/pair.ts";
import type { JournalEntry } from "../../scripts/support/scenario-draft.ts";
import { inOrder } from "./decision-order.ts";
import { decisionsOf, type Life, type Moment } from "./decisions.ts";

const place = join(import.meta.dirname, "../golden/journals");

export function readGolden(fault: string, who: ControllerId): string {
  return readFileSync(join(place, `${fault}-${who}.jsonl`), "utf8");
}

/** Header and moments of a journal, line by line. */
export function entriesOfJournal(text: string): JournalEntry[] {
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line) => readJournalLine(line) as JournalEntry);
}

/** The lives that a journal tells of. */
export function livesOfJournal(text: string): Life[] {
  const lives: { config: Config; moments: Moment[] }[] = [];
  for (const { header, event, effects } of entriesOfJournal(text)) {
    if (header) lives.push({ config: configSchema.parse(header.config), moments: [] });
    else if (event && effects) lives.at(-1)?.moments.push({ event, effects });
  }
  return lives;
}

/** The lives that a controller of a simulated pair has led. */
export function livesOfPair(pair: Pair, who: ControllerId): Life[] {
  return pair.lives
    .filter(({ controller }) => controller.me === who)
    .map(({ journal }) => ({ config: pair.config(who), moments: journal }));
}

/** Where the pair was whole for the first time: this controller served its own. Later lives begin after that. */
function wholeAt(life: Life, index: number): number {
  return index > 0 ? 0 : life.moments.findIndex(isServing) + 1;
}

function isServing({ effects }: Moment): boolean {
  return effects.some((each) => each.kind === "report" && each.report.code === "vserver.serving");
}

/** The epoch that a controller had kept when the pair was whole for the first time. */
export function epochsBefore(lives: readonly Life[]): number {
  const [first] = lives;
  const effects = first?.moments.slice(0, wholeAt(first, 0)).flatMap((each) => each.effects) ?? [];
  return Math.max(0, ...effects.map((each) => (each.kind === "persist" ? each.record.epoch : 0)));
}

/**
 * The order of what was decided since the pair was whole for the first time. What came before is who was started first, which on the bench
 * is chance.
 */
export function orderSinceWhole(lives: readonly Life[]): string {
  return lives
    .map((life, i) => {
      const since = life.moments[wholeAt(life, i)]?.event.nowMs ?? Number.POSITIVE_INFINITY;
      const decisions = decisionsOf(life).filter(({ atMs }) => atMs >= since);
      return [`life ${i + 1}`, ...inOrder(decisions)].join("\n");
    })
    .join("\n\n");
}
