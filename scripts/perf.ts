/** Figures of this machine: `npm run -s perf -- [block] [--json] [--runs N] [--seconds S]`. */
import { parseArgs } from "node:util";
import { measureBlock } from "./perf-block.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "boolean", default: false },
    runs: { type: "string", default: "3" },
    seconds: { type: "string", default: "2" },
  },
});
const [what = "block"] = positionals;
const runs = Number(values.runs);
const seconds = Number(values.seconds);
if (what !== "block" || !(runs >= 1 && runs <= 100) || !(seconds >= 1 && seconds <= 600)) {
  console.error("usage: perf [block] [--json] [--runs 1…100] [--seconds 1…600]");
  process.exit(2);
}

for (const line of await measureBlock(runs, seconds)) {
  if (values.json) {
    console.log(JSON.stringify(line));
    continue;
  }
  const { workload, server, unit, min, median, max } = line;
  const figures = [median, min, max].map((value) => `${value}`.padStart(8)).join(" ");
  console.log(`${workload.padEnd(18)} ${server.padEnd(14)} ${figures}  ${unit} (median, min, max)`);
}
