/** Figures of this machine: `npm run -s perf -- [block|mirror] [--json] [--runs N] [--seconds S]`. */
import { parseArgs } from "node:util";
import { measureBlock } from "./perf-block.ts";
import { measureMirror } from "./perf-mirror.ts";

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
if (
  !["block", "mirror"].includes(what) ||
  !(runs >= 1 && runs <= 100) ||
  !(seconds >= 1 && seconds <= 600)
) {
  console.error("usage: perf [block|mirror] [--json] [--runs 1…100] [--seconds 1…600]");
  process.exit(2);
}

if (what === "mirror") {
  for (const line of await measureMirror(runs, seconds)) {
    const { workload, transport, iops, mbPerSecond, peer, peerIops, ratio } = line;
    const text = `${workload.padEnd(18)} ${transport} ${iops} IOPS ${mbPerSecond} MB/s, ${peer} ${peerIops} IOPS: ${ratio}`;
    console.log(values.json ? JSON.stringify(line) : text);
  }
  process.exit(0);
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
