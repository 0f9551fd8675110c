/**
 * How much a virtual server may send and receive by its interface. What it sends waits in the kernel's token bucket (tc-tbf(8)) on that interface; what
 * comes in beyond the limit is dropped on it (nf_tables, limit), which makes a sender slow down (RFC 5681).
 *
 * Both are on the virtual server's own interface, above the address gate: nothing that waits here passes a gate that is closed.
 */
import { done, failed, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import {
  attribute,
  message,
  messageFlag,
  NetlinkSocket,
  nested,
  netlinkProtocol,
  textAttribute,
  uint32,
} from "../netlink.ts";
import * as nft from "../nftables.ts";
import { errno, errorName } from "../syscalls.ts";

/** <linux/rtnetlink.h>, <linux/pkt_sched.h>, <linux/if_ether.h> */
const RTM_NEWQDISC = 36;
const RTM_DELQDISC = 37;
const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TCA_TBF_PARMS = 1;
const TCA_TBF_RATE64 = 4;
const TCA_TBF_BURST = 6;
const TC_H_ROOT = 0xffff_ffff;
const TC_LINKLAYER_ETHERNET = 1;

const table = "dyad-limits";
const bytesPerSInMbit = 125_000;

/** Longest that a packet waits here; a sender that fills the queue is told by its end. */
const queueS = 0.05;
/** What may be sent at once, so that a rate is reached although the kernel's timers are late. Larger segments are cut. */
const sendBurstS = 0.005;
const kibibyte = 1024;

export interface TokenBucket {
  readonly bytesPerS: number;
  readonly burstBytes: number;
  readonly queueBytes: number;
}

/** What the kernel is told to hold a rate when sending. Pure. */
export function sendingOf(mbit: number): TokenBucket {
  const bytesPerS = mbit * bytesPerSInMbit;
  return {
    bytesPerS,
    burstBytes: Math.max(16 * kibibyte, Math.ceil(bytesPerS * sendBurstS)),
    queueBytes: Math.max(32 * kibibyte, Math.ceil(bytesPerS * queueS)),
  };
}

/** The same for receiving, where nothing waits: what the kernel lets through at once is always what comes in a second (net/netfilter/nft_limit.c). Pure. */
export function receivingOf(mbit: number): Omit<TokenBucket, "queueBytes"> {
  const bytesPerS = mbit * bytesPerSInMbit;
  return { bytesPerS, burstBytes: bytesPerS };
}

/**
 * Sets or changes the limit of an interface, or takes it away; to be called in its network. Idempotent. Fault `refused`: the kernel lacks what it
 * takes, or does not want to; one direction may be limited all the same.
 */
export function limitBandwidth(
  socket: NetlinkSocket,
  nic: { readonly name: string; readonly index: number },
  mbit: number | undefined,
): Outcome {
  const sent = mbit === undefined ? removeQueue(socket, nic) : setQueue(socket, nic, mbit);
  const received = limitReceiving(nic.name, mbit);
  return sent.ok ? received : sent;
}

/** struct tcmsg: family, interface, handle, parent, info. */
function queueHeader(index: number): Buffer {
  const head = Buffer.alloc(20);
  head.writeInt32LE(index, 4);
  head.writeUInt32LE(TC_H_ROOT, 12);
  return head;
}

/** struct tc_tbf_qopt: two struct tc_ratespec of 12 bytes (the second is for a peak rate), limit, buffer, mtu. */
function bucketOptions({ bytesPerS, burstBytes, queueBytes }: TokenBucket): Buffer {
  const options = Buffer.alloc(36);
  options[1] = TC_LINKLAYER_ETHERNET;
  // What does not fit is told by the attribute alone.
  options.writeUInt32LE(Math.min(bytesPerS, 0xffff_ffff), 8);
  options.writeUInt32LE(queueBytes, 24);
  return Buffer.concat([
    attribute(TCA_TBF_PARMS, options),
    attribute(TCA_TBF_BURST, uint32(burstBytes)),
    attribute(TCA_TBF_RATE64, uint64(bytesPerS)),
  ]);
}

function uint64(value: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(BigInt(value));
  return out;
}

function setQueue(
  socket: NetlinkSocket,
  { name, index }: { readonly name: string; readonly index: number },
  mbit: number,
): Outcome {
  const body = Buffer.concat([
    queueHeader(index),
    textAttribute(TCA_KIND, "tbf"),
    nested(TCA_OPTIONS, bucketOptions(sendingOf(mbit))),
  ]);
  const flags = messageFlag.acknowledge | messageFlag.create | messageFlag.replace;
  const number = refusal(socket, RTM_NEWQDISC, flags, body);
  if (number === 0) return done;
  const why =
    number === errno.ENOENT
      ? "this kernel has no token bucket (sch_tbf)"
      : `kernel says ${errorName(-number)}`;
  return failed("refused", `limit what ${name} sends to ${mbit} Mbit/s`, why);
}

function removeQueue(
  socket: NetlinkSocket,
  { name, index }: { readonly name: string; readonly index: number },
): Outcome {
  const number = refusal(socket, RTM_DELQDISC, messageFlag.acknowledge, queueHeader(index));
  // The kernel's own queue, which is there where no other is, cannot be removed.
  if (number === 0 || number === errno.ENOENT || number === errno.EINVAL) return done;
  return failed("refused", `limit no more what ${name} sends`, `kernel says ${errorName(-number)}`);
}

/** The kernel's error number; 0 when it has done so. */
function refusal(socket: NetlinkSocket, type: number, flags: number, body: Buffer): number {
  const sequence = socket.nextSequence();
  const answer = socket.transact(message(type, flags, sequence, body), sequence);
  return answer.ok ? (answer.value.refusals.get(sequence) ?? 0) : errno.EIO;
}

/** Replaces the rule, or takes it away, in one transaction. */
function limitReceiving(nic: string, mbit: number | undefined): Outcome {
  const operation = `limit what ${nic} receives`;
  const socket = NetlinkSocket.open(netlinkProtocol.netfilter);
  if (!socket.ok) return failed("refused", operation, "no netlink", socket.fault);
  // Add and delete: whatever was there goes, and nothing is refused because it was not there.
  const commands = [nft.addTable(table), nft.deleteTable(table)];
  if (mbit !== undefined) commands.push(...receivingCommands(nic, mbit));
  const { bytes, sequences } = nft.batch(commands, () => socket.value.nextSequence());
  const answer = socket.value.transact(bytes, sequences.at(-1) ?? 0);
  socket.value.close();
  if (!answer.ok) return failed("refused", operation, "no answer", answer.fault);
  const [number] = answer.value.refusals.values();
  return number === undefined
    ? done
    : failed("refused", operation, `kernel says ${errorName(-number)}`);
}

function receivingCommands(device: string, mbit: number): nft.Command[] {
  const { bytesPerS } = receivingOf(mbit);
  const chain = { name: "ingress", device, hook: nft.netdevHook.ingress, priority: 0 };
  const drop = nft.verdictIs(nft.verdict.drop);
  return [
    nft.addTable(table),
    nft.addNetdevChain(table, chain),
    nft.addRule(table, chain.name, [nft.isOver(bytesPerS), drop]),
  ];
}
