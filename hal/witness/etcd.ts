/**
 * A witness in etcd: the records are keys, the register decides here, and a transaction makes sure that nothing has changed since it was
 * read. etcd answers when a quorum of its members has the write on disk.
 *
 *     dyad-witness/<pair>/identity           the witness's identity, written once by an administrator (`dyad witness init --etcd`)
 *     dyad-witness/<pair>/volume/<volume>    the record, JSON
 *     dyad-witness/<pair>/newest             the volume that was added last: written with each new one, so that two cannot be added on one count
 */
import { decide } from "../../firmware-ts/core/witness/register.ts";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import {
  type WitnessAnswer,
  type WitnessList,
  type WitnessRecord,
  type WitnessRequest,
  witnessIdSchema,
  witnessLimits,
  witnessListSchema,
  witnessRecordSchema,
} from "../../firmware-ts/schema/witness.ts";
import type { Witness } from "../port/witness.ts";
import { parseJson } from "./call.ts";
import {
  base64,
  type EtcdAccess,
  type EtcdGateway,
  type EtcdTxn,
  etcdGateway,
  fromBase64,
} from "./etcd-gateway.ts";

export interface EtcdOptions extends Omit<EtcdAccess, "endpoint"> {
  /** Members of one cluster; the next is asked when one does not answer. */
  readonly endpoints: readonly [URL, ...URL[]];
  readonly pair: string;
}

/** A record that changes between reading and writing is read again so often; the version then tells the asker. */
const attemptsMax = 4;

/** etcd must be run with its default durability (`--unsafe-no-fsync` is not for a witness). */
export function etcdWitness(options: EtcdOptions): Witness {
  const { pair } = options;
  const first = gatewaysOf(options);
  return {
    ask: (request, deadlineMs) =>
      inTurn(first, deadlineMs, (gateway, endMs) => askOne(gateway, pair, request, endMs)),
    list: (deadlineMs) =>
      inTurn(first, deadlineMs, (gateway, endMs) => listOne(gateway, pair, endMs)),
  };
}

/** Writes the identity of a new witness, unless there is one. Returns the one that stands then. */
export async function prepareEtcd(
  options: EtcdOptions,
  identity: string,
  deadlineMs: number,
): Promise<Outcome<string>> {
  const key = identityKey(options.pair);
  const read = { request_range: { key: base64(key) } };
  return await inTurn(gatewaysOf(options), deadlineMs, async (gateway, endMs) => {
    const body = {
      compare: [unchanged(key, undefined)],
      success: [{ request_put: { key: base64(key), value: base64(identity) } }],
      failure: [read],
    };
    const tried = await gateway.txn(body, left(endMs));
    if (!tried.ok) return tried;
    return tried.value.succeeded ? good(identity) : identityIn(tried.value);
  });
}

type Gateways = readonly [EtcdGateway, ...EtcdGateway[]];

function gatewaysOf({ endpoints, ...access }: EtcdOptions): Gateways {
  const [first, ...others] = endpoints.map((endpoint) => etcdGateway({ ...access, endpoint }));
  if (first === undefined) throw new Error("etcd witness: no endpoint");
  return [first, ...others];
}

/**
 * The next member is asked when one was not reached or does not answer in its share of the time. SAFETY: a write that took effect unheard
 * has raised the record's version, so the same request decides to "stale" at the next member.
 */
async function inTurn<T>(
  gateways: Gateways,
  deadlineMs: number,
  attempt: (gateway: EtcdGateway, endMs: number) => Promise<Outcome<T>>,
): Promise<Outcome<T>> {
  const endMs = performance.now() + deadlineMs;
  let outcome: Outcome<T> | undefined;
  for (const [index, gateway] of gateways.entries()) {
    const now = performance.now();
    outcome = await attempt(gateway, now + (endMs - now) / (gateways.length - index));
    if (outcome.ok || outcome.fault.code === "refused" || performance.now() >= endMs)
      return outcome;
  }
  return outcome ?? failed("ioError", "ask etcd", "no endpoint");
}

async function askOne(
  gateway: EtcdGateway,
  pair: string,
  request: WitnessRequest,
  endMs: number,
): Promise<Outcome<WitnessAnswer>> {
  const key = `${volumePrefix(pair)}${request.volume}`;
  for (let attempt = 1; attempt <= attemptsMax; attempt += 1) {
    const read = await readOne(gateway, pair, key, endMs);
    if (!read.ok) return read;
    const { identity, record, count } = read.value;
    const { answer, write } = decide(identity, record, request);
    if (write === undefined) return good(answer);
    if (record === undefined && count >= witnessLimits.volumesMax)
      return good({ ...answer, result: "full", record: null });
    const body = writeBody(pair, request.volume, read.value, write);
    const written = await gateway.txn(body, left(endMs));
    if (!written.ok) return written;
    if (written.value.succeeded) return good(answer);
  }
  return failed("ioError", `ask etcd for ${key}`, "the record changes all the time");
}

interface Read {
  readonly identity: string;
  readonly record: WitnessRecord | undefined;
  readonly revision: string | undefined;
  /** Volumes of the pair, and the revision of the key that every new one writes. */
  readonly count: number;
  readonly newest: string | undefined;
}

/** Takes effect only where everything is as it was read. */
function writeBody(pair: string, volume: string, read: Read, write: WitnessRecord) {
  const key = `${volumePrefix(pair)}${volume}`;
  const put = (to: string, value: string) => ({
    request_put: { key: base64(to), value: base64(value) },
  });
  const isNew = read.record === undefined;
  return {
    compare: [
      // The identity, too: whoever begins a new witness in this etcd ends this one.
      { key: base64(identityKey(pair)), target: "VALUE", value: base64(read.identity) },
      unchanged(key, read.revision),
      ...(isNew ? [unchanged(newestKey(pair), read.newest)] : []),
    ],
    success: [put(key, JSON.stringify(write)), ...(isNew ? [put(newestKey(pair), volume)] : [])],
  };
}

async function readOne(
  gateway: EtcdGateway,
  pair: string,
  key: string,
  endMs: number,
): Promise<Outcome<Read>> {
  const body = {
    success: [
      { request_range: { key: base64(identityKey(pair)) } },
      { request_range: { key: base64(key) } },
      { request_range: { key: base64(newestKey(pair)) } },
      {
        request_range: {
          key: base64(volumePrefix(pair)),
          range_end: base64(volumesEnd(pair)),
          count_only: true,
        },
      },
    ],
  };
  const read = await gateway.txn(body, left(endMs));
  if (!read.ok) return read;
  const identity = identityIn(read.value);
  if (!identity.ok) return identity;
  const [, own, last, all] = read.value.responses.map(({ response_range }) => response_range);
  const newest = last?.kvs[0]?.mod_revision;
  const known = { identity: identity.value, count: Number(all?.count ?? 0), newest };
  const entry = own?.kvs[0];
  if (entry === undefined) return good({ ...known, record: undefined, revision: undefined });
  const record = witnessRecordSchema.safeParse(parseJson(fromBase64(entry.value))?.value);
  if (!record.success)
    return failed("badInput", `read ${key} of etcd`, "it is no record of a witness", record.error);
  return good({ ...known, record: record.data, revision: entry.mod_revision });
}

async function listOne(
  gateway: EtcdGateway,
  pair: string,
  endMs: number,
): Promise<Outcome<WitnessList>> {
  const [operation, prefix] = [`list ${volumePrefix(pair)} of etcd`, volumePrefix(pair)];
  const body = { success: [{ request_range: { key: base64(identityKey(pair)) } }] };
  const first = await gateway.txn(body, left(endMs));
  if (!first.ok) return first;
  const identity = identityIn(first.value);
  if (!identity.ok) return identity;
  const limit = witnessLimits.volumesMax + 1;
  const listed = await gateway.range(prefix, volumesEnd(pair), limit, left(endMs));
  if (!listed.ok) return listed;
  const parsed = witnessListSchema.safeParse({
    witness: identity.value,
    volumes: listed.value.map(({ key, value }) => ({
      volume: fromBase64(key).slice(prefix.length),
      record: parseJson(fromBase64(value))?.value,
    })),
  });
  return parsed.success
    ? good(parsed.data)
    : failed("badInput", operation, "these are no records of a witness", parsed.error);
}

function identityIn(txn: EtcdTxn): Outcome<string> {
  const value = txn.responses[0]?.response_range?.kvs[0]?.value;
  const operation = "read the witness's identity in etcd";
  if (value === undefined)
    return failed("badInput", operation, "there is none; run: dyad witness init --etcd …");
  const parsed = witnessIdSchema.safeParse(fromBase64(value));
  return parsed.success
    ? good(parsed.data)
    : failed("badInput", operation, "it is none of a witness", parsed.error);
}

const identityKey = (pair: string) => `dyad-witness/${pair}/identity`;
const volumePrefix = (pair: string) => `dyad-witness/${pair}/volume/`;
/** "0" is the character behind "/". */
const volumesEnd = (pair: string) => `dyad-witness/${pair}/volume0`;
const newestKey = (pair: string) => `dyad-witness/${pair}/newest`;
const left = (endMs: number) => Math.max(1, endMs - performance.now());

/** etcd counts 0 for a key that is not there (rpc.proto, Compare). */
function unchanged(key: string, revision: string | undefined) {
  return { key: base64(key), target: "MOD", mod_revision: revision ?? "0" };
}
