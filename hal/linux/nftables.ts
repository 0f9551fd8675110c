/**
 * The part of nf_tables' netlink protocol that the address gate and the limit of bandwidth need (<linux/netfilter/nf_tables.h>): tables, sets
 * with elements that expire, netdev chains, and rules made of expressions. `nft list ruleset` shows the result.
 *
 * Glossary. *batch*: messages that take effect all together or not at all. *register*: where an expression
 * leaves a value for the next one. *element*: one key of a set; with a timeout the kernel stops matching it by itself.
 */
import { attribute, message, messageFlag, nested, textAttribute } from "./netlink.ts";

const NFNL_SUBSYS_NFTABLES = 10;
const NFNL_MSG_BATCH_BEGIN = 16;
const NFNL_MSG_BATCH_END = 17;
const NFPROTO_NETDEV = 5;

const messageType = {
  newTable: 0,
  deleteTable: 2,
  newChain: 3,
  newRule: 6,
  newSet: 9,
  newElement: 12,
  getElements: 13,
  deleteElement: 14,
} as const;

/** <linux/netfilter.h>: verdicts, and the hooks of a network device. */
export const verdict = { drop: 0, accept: 1 } as const;
export const netdevHook = { ingress: 0, egress: 1 } as const;

/** Registers of 16 bytes start at 1 (enum nft_registers); 0 takes the verdict. */
const NFT_REG_VERDICT = 0;
const NFT_REG_1 = 1;
const NFT_SET_TIMEOUT = 0x10;
const NFT_LOOKUP_F_INV = 1;
const NFT_LIMIT_PKT_BYTES = 1;
const NFT_LIMIT_F_INV = 1;

/** enum nft_meta_keys */
export const metaKey = { protocol: 1, layer4Protocol: 16 } as const;
/** enum nft_payload_bases */
export const payloadBase = { network: 1, transport: 2 } as const;

/** enum nft_set_elem_attributes */
export const elementAttribute = { key: 1, expiration: 5 } as const;
/** enum nft_data_attributes */
export const dataValue = 1;
/** enum nft_set_elem_list_attributes, enum nft_list_attributes */
export const elementListElements = 3;
export const listElement = 1;

/** struct nfgenmsg, in front of the attributes of every message. */
export const generationHeaderBytes = 4;

function generationHeader(family: number, resource: number): Buffer {
  const out = Buffer.alloc(generationHeaderBytes);
  out[0] = family;
  out.writeUInt16BE(resource, 2);
  return out;
}

/** nf_tables numbers are big endian. */
function uint32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(value);
  return out;
}

function int32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeInt32BE(value);
  return out;
}

function uint64(value: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64BE(BigInt(value));
  return out;
}

/** One message of a batch, before it has its sequence number. */
export interface Command {
  readonly type: number;
  readonly flags: number;
  readonly body: Uint8Array;
}

function command(type: number, flags: number, ...attributes: readonly Uint8Array[]): Command {
  return {
    type: (NFNL_SUBSYS_NFTABLES << 8) | type,
    flags,
    body: Buffer.concat([generationHeader(NFPROTO_NETDEV, 0), ...attributes]),
  };
}

/** Adds the table; one that exists is left as it is. */
export function addTable(table: string): Command {
  return command(messageType.newTable, messageFlag.create, textAttribute(1, table));
}

export function deleteTable(table: string): Command {
  return command(messageType.deleteTable, 0, textAttribute(1, table));
}

/** A set of keys of `keyBytes`. `keyType` is only for the eyes of `nft list` (its datatype number). */
export function addSet(
  table: string,
  set: { name: string; id: number; keyBytes: number; keyType: number; expires: boolean },
): Command {
  return command(
    messageType.newSet,
    messageFlag.create,
    textAttribute(1, table),
    textAttribute(2, set.name),
    attribute(3, uint32(set.expires ? NFT_SET_TIMEOUT : 0)),
    attribute(4, uint32(set.keyType)),
    attribute(5, uint32(set.keyBytes)),
    attribute(10, uint32(set.id)),
  );
}

function elements(table: string, set: string, keys: readonly Uint8Array[], timeoutMs?: number) {
  const items = keys.map((key) =>
    nested(
      listElement,
      nested(elementAttribute.key, attribute(dataValue, key)),
      ...(timeoutMs === undefined ? [] : [attribute(4, uint64(timeoutMs))]),
    ),
  );
  return [
    textAttribute(1, table),
    textAttribute(2, set),
    nested(elementListElements, ...items),
  ] as const;
}

/** Adds elements; refused with EEXIST when one is there already and has not expired. */
export function addElements(
  table: string,
  set: string,
  keys: readonly Uint8Array[],
  timeoutMs?: number,
): Command {
  return command(
    messageType.newElement,
    messageFlag.create | messageFlag.excl,
    ...elements(table, set, keys, timeoutMs),
  );
}

/** Adds elements to a set that never expire; one that is there already stays. */
export function ensureElements(table: string, set: string, keys: readonly Uint8Array[]): Command {
  return command(messageType.newElement, messageFlag.create, ...elements(table, set, keys));
}

/** Refused with ENOENT when the element is absent or has expired, though it may still lie in memory. */
export function deleteElements(table: string, set: string, keys: readonly Uint8Array[]): Command {
  return command(messageType.deleteElement, 0, ...elements(table, set, keys));
}

/** The request that dumps the elements of a set; expired ones are left out by the kernel. */
export function getElements(table: string, set: string, sequence: number): Buffer {
  const { type, body } = command(
    messageType.getElements,
    0,
    textAttribute(1, table),
    textAttribute(2, set),
  );
  return message(type, messageFlag.dump, sequence, body);
}

/** A filter chain on a network device; what no rule drops passes. */
export function addNetdevChain(
  table: string,
  chain: { name: string; device: string; hook: number; priority: number },
): Command {
  return command(
    messageType.newChain,
    messageFlag.create,
    textAttribute(1, table),
    textAttribute(3, chain.name),
    nested(
      4,
      attribute(1, uint32(chain.hook)),
      attribute(2, int32(chain.priority)),
      textAttribute(3, chain.device),
    ),
    attribute(5, uint32(verdict.accept)),
    textAttribute(7, "filter"),
  );
}

/** Appends a rule: expressions run in order until one does not match. */
export function addRule(table: string, chain: string, expressions: readonly Buffer[]): Command {
  return command(
    messageType.newRule,
    messageFlag.create | messageFlag.append,
    textAttribute(1, table),
    textAttribute(2, chain),
    nested(4, ...expressions),
  );
}

function expression(name: string, ...attributes: readonly Uint8Array[]): Buffer {
  return nested(1, textAttribute(1, name), nested(2, ...attributes));
}

/** Matches when the metadatum, or the bytes of the packet just loaded, equal `value`. */
function equals(value: Uint8Array): Buffer {
  return expression(
    "cmp",
    attribute(1, uint32(NFT_REG_1)),
    attribute(2, uint32(0)),
    nested(3, attribute(dataValue, value)),
  );
}

/** Matches packets whose metadatum is `value` (in network order for protocols). */
export function metaIs(key: number, value: Uint8Array): Buffer[] {
  return [
    expression("meta", attribute(1, uint32(NFT_REG_1)), attribute(2, uint32(key))),
    equals(value),
  ];
}

/** Where a field lies in a packet. */
export interface Field {
  readonly base: number;
  readonly offset: number;
  readonly length: number;
}

function load(field: Field): Buffer {
  return expression(
    "payload",
    attribute(1, uint32(NFT_REG_1)),
    attribute(2, uint32(field.base)),
    attribute(3, uint32(field.offset)),
    attribute(4, uint32(field.length)),
  );
}

export function fieldIs(field: Field, value: Uint8Array): Buffer[] {
  return [load(field), equals(value)];
}

/** Matches when the field is (or is not) an element of the set. `id` names a set made in the same batch. */
export function fieldIn(field: Field, set: { name: string; id: number }, inside = true): Buffer[] {
  return [
    load(field),
    expression(
      "lookup",
      textAttribute(1, set.name),
      attribute(2, uint32(NFT_REG_1)),
      attribute(4, uint32(set.id)),
      ...(inside ? [] : [attribute(5, uint32(NFT_LOOKUP_F_INV))]),
    ),
  ];
}

/** Matches what comes beyond a rate, counted in bytes (enum nft_limit_attributes). What comes in a second is not yet beyond it, even at once. */
export function isOver(bytesPerS: number): Buffer {
  return expression(
    "limit",
    attribute(1, uint64(bytesPerS)),
    attribute(2, uint64(1)),
    attribute(4, uint32(NFT_LIMIT_PKT_BYTES)),
    attribute(5, uint32(NFT_LIMIT_F_INV)),
  );
}

/** Ends the chain with a verdict. */
export function verdictIs(code: number): Buffer {
  return expression(
    "immediate",
    attribute(1, uint32(NFT_REG_VERDICT)),
    nested(2, nested(2, attribute(1, int32(code)))),
  );
}

/** Puts commands between batch markers. The last is acknowledged; `sequences` tells refusals apart. */
export function batch(
  commands: readonly Command[],
  nextSequence: () => number,
): { bytes: Buffer; sequences: readonly number[] } {
  const marker = generationHeader(0, NFNL_SUBSYS_NFTABLES);
  const parts = [message(NFNL_MSG_BATCH_BEGIN, 0, nextSequence(), marker)];
  const sequences = commands.map(({ type, flags, body }, index) => {
    const sequence = nextSequence();
    const last = index === commands.length - 1 ? messageFlag.acknowledge : 0;
    parts.push(message(type, flags | last, sequence, body));
    return sequence;
  });
  parts.push(message(NFNL_MSG_BATCH_END, 0, nextSequence(), marker));
  return { bytes: Buffer.concat(parts), sequences };
}
