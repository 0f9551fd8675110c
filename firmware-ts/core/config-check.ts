/**
 * The whole judgement of a configuration file, as the daemon makes it before it starts and `dyad config check` repeats it: its
 * shape (schema/config-text), then the inequalities of the safety argument (core/timing), each with the line it stands on.
 */
import type { Config } from "../schema/config.ts";
import { type ConfigOutcome, parseConfigBytes } from "../schema/config-text.ts";
import { type TextProblem, textFailure } from "../schema/toml-document.ts";
import { keyLines } from "../schema/toml-lines.ts";
import { deriveTiming, timingFaults } from "./timing.ts";

/** A configuration that a daemon may start with, or every reason against it; `file` is only used in messages. Never throws. */
export function judgeConfig(bytes: Uint8Array, file: string): ConfigOutcome {
  const parsed = parseConfigBytes(bytes, file);
  if (!parsed.ok) return parsed;
  const problems = timingProblems(parsed.value, bytes, file);
  return problems.length > 0 ? textFailure(problems) : parsed;
}

/** A broken inequality names its key first; the line is that key's, or the table's where the key has its default. */
function timingProblems(config: Config, bytes: Uint8Array, file: string): TextProblem[] {
  const faults = timingFaults(deriveTiming(config.timing));
  if (faults.length === 0) return [];
  const lines = keyLines(new TextDecoder().decode(bytes));
  return faults.map((message) => {
    const key = /^[a-z_]+_ms/.exec(message)?.[0] ?? "";
    const line = lines.exact(["timing", key]) ?? lines.exact(["timing"]) ?? 1;
    return { file, line, path: "timing", message };
  });
}
