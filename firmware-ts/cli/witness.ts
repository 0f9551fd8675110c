/** `dyad witness init | show | register`: make a witness, look at one, and register a volume by an administrator's word. */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { prepareEtcd } from "../../hal/witness/etcd.ts";
import { createState, readState, writeDurably } from "../../hal/witness/state-file.ts";
import { emptyState } from "../core/witness/state.ts";
import {
  generationSchema,
  reasonSchema,
  volumeIdSchema,
  type WitnessRecord,
} from "../schema/witness.ts";
import { CliError, type ExitCode, exitCodes } from "./exit.ts";
import { type CommonOptions, type Io, printJson } from "./io.ts";
import {
  type AccessWords,
  checkedPair,
  type EtcdWords,
  etcdOptions,
  faultError,
  openWitness,
} from "./witness-access.ts";

const deadlineMs = 10_000;
const newIdentity = () => randomBytes(16).toString("hex");

/** Makes what is missing: the witness, and a key for the pair. What is there stays. */
export async function initWitness(
  io: Io,
  words: CommonOptions & EtcdWords & { readonly state: string },
): Promise<ExitCode> {
  if (words.etcd !== undefined) {
    const prepared = await prepareEtcd(etcdOptions(words), newIdentity(), deadlineMs);
    if (!prepared.ok) throw faultError(prepared.fault);
    if (words.output === "json") printJson(io, { witness: prepared.value });
    else io.out(`witness ${prepared.value} in etcd\n`);
    return exitCodes.ok;
  }
  const pair = checkedPair(words.pair);
  const created = createState(words.state, emptyState(newIdentity()));
  const state = readState(words.state);
  if (!state.ok)
    throw faultError(created.ok || created.fault.code === "refused" ? state.fault : created.fault);
  const { witness } = state.value;
  const keyFile = makeKey(join(words.state, "keys"), pair);
  if (words.output === "json") printJson(io, { witness, isNew: created.ok, pair, keyFile });
  else
    io.out(
      `witness ${witness}${created.ok ? "" : " (it was there already)"}\n` +
        `key of pair ${pair}: ${keyFile}; copy it to both controllers, for root only\n` +
        `run it with: dyad witness serve --state ${words.state}   (again, if it runs: keys are read at the start)\n`,
    );
  return exitCodes.ok;
}

function makeKey(directory: string, pair: string): string {
  const path = join(directory, `${pair}.key`);
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    if (!existsSync(path)) writeDurably(path, `${randomBytes(32).toString("hex")}\n`);
  } catch (error) {
    throw new CliError(exitCodes.failure, "ioError", `${path}: ${(error as Error).message}`);
  }
  return path;
}

/** Prints the identity and every volume. */
export async function showWitness(io: Io, words: CommonOptions & AccessWords): Promise<ExitCode> {
  const listed = await openWitness(words).list(deadlineMs);
  if (!listed.ok) throw faultError(listed.fault);
  const { witness, volumes } = listed.value;
  if (words.output === "json") printJson(io, listed.value);
  else {
    io.out(`witness ${witness}\n`);
    for (const { volume, record } of volumes) io.out(`${volume}: ${recordText(record)}\n`);
    if (volumes.length === 0) io.out(`no volumes of pair ${words.pair}\n`);
  }
  return exitCodes.ok;
}

function recordText({ base, standing, version, imposed }: WitnessRecord): string {
  const why = imposed === undefined ? "" : `; registered by an administrator: ${imposed}`;
  return `generation ${base}; ${standingText(standing)} (version ${version})${why}`;
}

function standingText(standing: WitnessRecord["standing"]): string {
  switch (standing.kind) {
    case "proposed":
      return `registered by controller ${standing.by} only, so nothing is granted`;
    case "free":
      return "the first controller that asks may continue alone";
    case "held":
      return `controller ${standing.by} alone may continue, as generation ${standing.next}, epoch ${standing.epoch}`;
  }
}

export interface RegisterWords extends CommonOptions, AccessWords {
  readonly volume: string;
  readonly generation: string;
  readonly reason: string;
  readonly yes?: true | undefined;
}

/** SAFETY: asks for confirmation, for a wrong word here can let both copies go on (docs/witness.md). */
export async function registerVolume(io: Io, words: RegisterWords): Promise<ExitCode> {
  const volume = checked("--volume", volumeIdSchema, words.volume);
  const base = checked("--generation", generationSchema, words.generation);
  const reason = checked("--reason", reasonSchema, words.reason);
  const access = openWitness(words);
  const listed = await access.list(deadlineMs);
  if (!listed.ok) throw faultError(listed.fault);
  const { witness, volumes } = listed.value;
  const version = volumes.find((each) => each.volume === volume)?.record.version ?? 0;
  await confirm(io, words, volume);
  const request = { kind: "impose", witness, volume, base, version, reason } as const;
  const answered = await access.ask(request, deadlineMs);
  if (!answered.ok) throw faultError(answered.fault);
  const { result, record } = answered.value;
  if (result !== "done") throw refusedError(result, record);
  if (words.output === "json") printJson(io, answered.value);
  else io.out(`${volume} is registered at generation ${base}\n`);
  return exitCodes.ok;
}

function refusedError(result: string, record: WitnessRecord | null): CliError {
  const now = record === null ? "" : `; now: ${recordText(record)}`;
  if (result === "stale")
    return new CliError(exitCodes.tryAgain, result, `somebody else has changed it${now}`);
  const why = result === "registered" ? "it is registered already" : `the witness says ${result}`;
  return new CliError(exitCodes.notPossible, result, `${why}${now}`);
}

async function confirm(io: Io, { yes }: RegisterWords, volume: string): Promise<void> {
  if (yes) return;
  if (!io.interactive)
    throw new CliError(exitCodes.usage, "usage", "needs --yes where nobody can be asked");
  const answer = await io.ask(
    `From then on a controller may continue ${volume} alone from this generation. If the other copy has gone on from it already, both will differ; so they will if the other controller is alive and still asks another witness.\nIs the other controller off for good, or are both in sync at it and asking this witness only? Type "yes" to go on: `,
  );
  if (answer.trim() !== "yes")
    throw new CliError(exitCodes.failure, "declined", "not confirmed; nothing was done");
}

function checked(option: string, schema: typeof volumeIdSchema, text: string): string {
  const parsed = schema.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new CliError(exitCodes.usage, "usage", `${option}: ${parsed.error.issues[0]?.message}`);
}
