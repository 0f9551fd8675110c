/**
 * Runs the import rules and fails when no module was read: a cruiser that silently parses nothing reports
 * "no violations", which would be a false green.
 */
import { spawnSync } from "node:child_process";

const roots = ["firmware-ts", "hal", "bench", "test", "scripts"];
const run = spawnSync("depcruise", ["--output-type", "json", ...roots], {
  encoding: "utf8",
  maxBuffer: 256 * 1024 * 1024,
});
if (run.error) throw new Error("check-imports: depcruise did not start", { cause: run.error });
type Summary = {
  summary: {
    totalCruised: number;
    violations: { rule: { name: string; severity: string }; from: string; to: string }[];
  };
  modules: { source: string }[];
};
const { summary, modules } = JSON.parse(run.stdout) as Summary;
const ours = modules.filter((module) => /^(firmware-ts|hal)\/.*\.ts$/.test(module.source)).length;
for (const { rule, from, to } of summary.violations) console.error(`${rule.name}: ${from} → ${to}`);
console.log(`import rules: ${ours} modules read, ${summary.violations.length} violations`);
if (ours === 0) {
  console.error("import rules: no module was read, so nothing was checked");
  process.exit(1);
}
process.exit(summary.violations.length === 0 ? 0 : 1);
