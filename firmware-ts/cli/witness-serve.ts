/** `dyad witness serve`: the built-in witness as a process. One line for each change; it ends with SIGTERM or SIGINT. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { readPairKey } from "../../hal/linux/pair-key.ts";
import { serveWitness } from "../../hal/witness/server.ts";
import { openState } from "../../hal/witness/state-file.ts";
import { witnessLimits, witnessPairSchema } from "../schema/witness.ts";
import { CliError, type ExitCode, exitCodes } from "./exit.ts";
import { type Io, plain } from "./io.ts";
import { faultError, parseAddress } from "./witness-access.ts";

/** Serves until it is told to end. Starts with a state and keys that it can read, or not at all. */
export async function runWitness(
  io: Io,
  words: { readonly state: string; readonly listen: string },
): Promise<ExitCode> {
  const { host, port } = parseAddress(words.listen);
  const keys = readKeys(join(words.state, "keys"));
  const store = openState(words.state);
  if (!store.ok) throw faultError(store.fault);
  const ends = Promise.withResolvers<unknown>();
  const log = (line: string) => io.out(`${plain(line)}\n`);
  const fatal = (error: unknown) => ends.resolve(error);
  const served = await serveWitness({ host, port, store: store.value, keys, log, fatal });
  if (!served.ok) {
    store.value.close();
    throw faultError(served.fault);
  }
  const { witness } = store.value.state();
  log(`witness ${witness} for ${[...keys.keys()].join(", ")} at ${host}:${served.value.port}`);
  const stop = () => ends.resolve(undefined);
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, stop);
  const error = await ends.promise;
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.off(signal, stop);
  await served.value.close();
  store.value.close();
  if (error === undefined) return exitCodes.ok;
  const message = `the state could not be kept (${(error as Error).message}); nothing was answered`;
  throw new CliError(exitCodes.failure, "ioError", message);
}

function readKeys(directory: string): ReadonlyMap<string, Uint8Array> {
  const fail = (message: string) =>
    new CliError(exitCodes.failure, "badInput", `${directory}: ${message}`);
  let names: string[];
  try {
    names = readdirSync(directory).filter((name) => name.endsWith(".key"));
  } catch (error) {
    throw fail(`${(error as Error).message}; run: dyad witness init --pair NAME`);
  }
  const keys = new Map<string, Uint8Array>();
  for (const name of names.toSorted()) {
    const pair = witnessPairSchema.safeParse(name.slice(0, -".key".length));
    if (!pair.success) throw fail(`${name} is named after no pair`);
    const key = readPairKey(join(directory, name));
    if (!key.ok) throw faultError(key.fault);
    keys.set(pair.data, key.value);
  }
  if (keys.size === 0) throw fail("no key; run: dyad witness init --pair NAME");
  if (keys.size > witnessLimits.pairsMax) throw fail(`more than ${witnessLimits.pairsMax} keys`);
  return keys;
}
