/**
 * The shelf as a process: `node hal/shelf/main.ts CONFIG.json`.
 *
 * CONFIG.json is what `target/config.ts` describes. When the shelf serves, one line of JSON appears on standard
 * output: {"ready":true,"port":3260}. SIGTERM and SIGINT end it in order; a kill loses nothing but what the disks
 * themselves may lose. Control commands: `target/control.ts`.
 */
import { readFile } from "node:fs/promises";
import { parseShelfConfig } from "./target/config.ts";
import { type Control, startControl } from "./target/control.ts";
import { ShelfError } from "./target/errors.ts";
import { startShelf } from "./target/shelf.ts";

const readConfig = async (path: string): Promise<unknown> => {
  try {
    return JSON.parse(await readFile(path, "utf8"));
  } catch (cause) {
    throw new ShelfError("CONFIG", `read ${path}`, cause);
  }
};

const main = async (): Promise<void> => {
  const [path] = process.argv.slice(2);
  if (path === undefined)
    throw new ShelfError("CONFIG", "usage: node hal/shelf/main.ts CONFIG.json");
  const config = parseShelfConfig(await readConfig(path));
  const shelf = await startShelf(config);
  let control: Control | null = null;
  if (config.controlSocket !== undefined) control = await startControl(shelf, config.controlSocket);
  let isStopping = false;
  const stop = async () => {
    if (isStopping) return;
    isStopping = true;
    await control?.close();
    await shelf.close();
  };
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => void stop());
  process.stdout.write(`${JSON.stringify({ ready: true, port: shelf.port })}\n`);
};

main().catch((error: unknown) => {
  const text = error instanceof ShelfError ? `${error.code}: ${error.message}` : String(error);
  process.stderr.write(`shelf: ${text}\n`);
  process.exit(1);
});
