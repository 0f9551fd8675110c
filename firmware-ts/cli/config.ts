/** `dyad config check | show | schema`: the configuration file, without a daemon. */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import type { ConfigOutcome } from "../schema/config-text.ts";
import type { TextProblem } from "../schema/toml-document.ts";
import { type ExitCode, exitCodes } from "./exit.ts";
import { type CommonOptions, type Io, printJson } from "./io.ts";

/** Says whether the daemon would accept the file, and if not, every reason with its line. */
export async function checkConfig(io: Io, options: CommonOptions, path: string): Promise<ExitCode> {
  const { judgeConfig } = await import("../core/config-check.ts");
  const outcome = await read(path, judgeConfig);
  if (!outcome.ok) return await printProblems(io, options, outcome.problems);
  const { controller, pair, virtualServers } = outcome.value;
  if (options.output === "json") printJson(io, { file: path, ok: true });
  else
    io.out(
      `${path}: ok (controller ${controller.id} of pair ${pair.id}, ${virtualServers.length} virtual servers)\n`,
    );
  return exitCodes.ok;
}

/** Prints what is in force: the file's values and every default. */
export async function showConfig(io: Io, options: CommonOptions, path: string): Promise<ExitCode> {
  const { formatConfig, parseConfigBytes } = await import("../schema/config-text.ts");
  const outcome = await read(path, parseConfigBytes);
  if (!outcome.ok) return await printProblems(io, options, outcome.problems);
  if (options.output === "json") printJson(io, outcome.value);
  else io.out(formatConfig(outcome.value));
  return exitCodes.ok;
}

/** Prints the JSON Schema of the file, for editors. */
export async function printConfigSchema(io: Io, options: CommonOptions): Promise<ExitCode> {
  const { configJsonSchema } = await import("../schema/config-text.ts");
  if (options.output === "json") printJson(io, configJsonSchema());
  else io.out(`${JSON.stringify(configJsonSchema(), null, 2)}\n`);
  return exitCodes.ok;
}

async function read(
  path: string,
  judge: (bytes: Uint8Array, file: string) => ConfigOutcome,
): Promise<ConfigOutcome> {
  const { configBytesMax } = await import("../schema/config-text.ts");
  const { textFailure } = await import("../schema/toml-document.ts");
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const buffer = new Uint8Array(configBytesMax + 1);
      const { bytesRead } = await file.read(buffer, 0, buffer.length, null);
      return judge(buffer.subarray(0, bytesRead), path);
    } finally {
      await file.close();
    }
  } catch (error) {
    const message = `cannot be read: ${error instanceof Error ? error.message : String(error)}`;
    return textFailure([{ file: path, line: 1, path: "", message }]);
  }
}

async function printProblems(
  io: Io,
  options: CommonOptions,
  problems: readonly TextProblem[],
): Promise<ExitCode> {
  const { formatProblem } = await import("../schema/toml-document.ts");
  for (const problem of problems)
    if (options.output === "json") printJson(io, problem);
    else io.err(`${formatProblem(problem)}\n`);
  return exitCodes.failure;
}
