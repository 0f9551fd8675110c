/** Reads `dyad.toml`. Everything about its contents is judged by core/config-check; here is only the reading. */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { judgeConfig } from "../core/config-check.ts";
import { type ConfigOutcome, configBytesMax } from "../schema/config-text.ts";
import { textFailure } from "../schema/toml-document.ts";

/**
 * Loads and checks the configuration at `path`. Never rejects: a file that cannot be read is a problem like any
 * other. Reads at most one byte more than the limit, so that a wrong path (a device, a huge log) cannot fill memory.
 */
export async function loadConfig(path: string): Promise<ConfigOutcome> {
  try {
    // Without O_NONBLOCK the opening of a named pipe would wait for a writer.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      if (!(await file.stat()).isFile()) throw new Error("not a regular file");
      const buffer = new Uint8Array(configBytesMax + 1);
      const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
      return judgeConfig(buffer.subarray(0, bytesRead), path);
    } finally {
      await file.close();
    }
  } catch (error) {
    const message = `cannot be read: ${error instanceof Error ? error.message : String(error)}`;
    return textFailure([{ file: path, line: 1, path: "", message }]);
  }
}
