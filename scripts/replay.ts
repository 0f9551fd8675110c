/** `node scripts/replay.ts JOURNAL…`: replays journals through the decisions; exit status 1 when anything comes out differently. */
import { readFileSync } from "node:fs";
import { replayJournal } from "../firmware-ts/daemon/replay.ts";

let differences = 0;
for (const path of process.argv.slice(2)) {
  const replay = replayJournal(readFileSync(path, "utf8").split("\n"));
  console.log(
    `${path}: ${replay.events} events in ${replay.lives} lives, ${replay.differences.length} differences`,
  );
  for (const difference of replay.differences) console.log(`  ${difference}`);
  differences += replay.differences.length;
}
process.exit(differences === 0 ? 0 : 1);
