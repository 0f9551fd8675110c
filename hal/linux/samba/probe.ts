/**
 * The proof that smbd answers and that its shares are there: NEGOTIATE at each of its addresses, which takes a process of its own for each, then
 * a null session and TREE_CONNECT to each share at the first of them. Run where the service runs, before the addresses are opened.
 *
 * A share that is not for guests refuses the null session, which shows that smbd knows it; only one for guests shows that its volume is there.
 */
import { randomBytes } from "node:crypto";
import { done, failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import type { ProgramPlace } from "../place/programs.ts";
import { nameOf, openStream, type StreamPlace } from "../stream.ts";
import { untilAnswered } from "../until-answered.ts";
import {
  command,
  dialectOf,
  encodeNegotiate,
  encodeSessionSetup,
  encodeTreeConnect,
  isChallenge,
  ntlmAnonymous,
  ntlmNegotiate,
  ntStatus,
} from "./smb2.ts";
import { Talk } from "./talk.ts";

/** Patience with one attempt, doubled when it was not enough. smbd makes a process for each connection, which takes a busy machine a while. */
const attemptMsFirst = 500;

export interface Offered {
  readonly addresses: readonly string[];
  readonly port: number;
  readonly guest: boolean;
  readonly shares: readonly string[];
}

/** How to end a probe early: `stillUseful` is asked after each attempt. `place`: where the service is. */
export interface ProbeOptions {
  readonly deadlineMs: number;
  readonly place: Pick<ProgramPlace, "socket">;
  readonly stillUseful: () => boolean;
}

/**
 * Asks again and again until the service answers for every share, or until `deadlineMs` have passed.
 * Value: milliseconds it took. Faults: `serviceSilent` (with the last reason), `serviceFailed` (no longer useful).
 */
export async function probeShares(
  offered: Offered,
  { deadlineMs, stillUseful, place }: ProbeOptions,
): Promise<Outcome<number>> {
  const operation = `probe ${offered.addresses.join(", ")} for SMB`;
  const asking = { operation, deadlineMs, attemptMsFirst, stillUseful };
  const proved = await untilAnswered(asking, (timeoutMs) => probeOnce(offered, place, timeoutMs));
  return proved.ok ? good(proved.value.tookMs) : proved;
}

async function probeOnce(
  { addresses, port, shares, guest }: Offered,
  { socket }: ProbeOptions["place"],
  timeoutMs: number,
): Promise<Outcome> {
  const outcomes = await Promise.all(
    addresses.map(async (host, i) => {
      const where = { host, port, socket };
      const opened = await openStream(where, timeoutMs);
      if (!opened.ok) return opened;
      const talk = new Talk(opened.value, nameOf(where), timeoutMs);
      const greeted = await greet(talk);
      const proved = greeted.ok && i === 0 ? await enter(talk, host, shares, guest) : greeted;
      talk.close();
      return proved;
    }),
  );
  return outcomes.find((each) => !each.ok) ?? done;
}

/** Asks once, at one address, for what smbd says to anybody: its listener and a process of its own answer, and no disk. Faults: those of `Talk`. */
export async function askNegotiate(where: StreamPlace, timeoutMs: number): Promise<Outcome> {
  const opened = await openStream(where, timeoutMs);
  if (!opened.ok) return opened;
  const talk = new Talk(opened.value, nameOf(where), timeoutMs);
  const greeted = await greet(talk);
  talk.close();
  return greeted;
}

async function greet(talk: Talk): Promise<Outcome> {
  const reply = await talk.ask(command.negotiate, () => encodeNegotiate(randomBytes(16)));
  if (!reply.ok) return reply;
  const { status, body } = reply.value;
  if (status !== ntStatus.success) return refused("NEGOTIATE", status);
  return dialectOf(body) === undefined ? failed("badInput", "NEGOTIATE", "no dialect") : done;
}

async function enter(
  talk: Talk,
  host: string,
  shares: readonly string[],
  guest: boolean,
): Promise<Outcome> {
  const { sessionSetup, treeConnect } = command;
  const first = await talk.ask(sessionSetup, (request) =>
    encodeSessionSetup(request, ntlmNegotiate()),
  );
  if (!first.ok) return first;
  if (first.value.status !== ntStatus.moreProcessing)
    return refused("SESSION_SETUP", first.value.status);
  if (!isChallenge(first.value.body)) return failed("badInput", "SESSION_SETUP", "no challenge");
  const second = await talk.ask(sessionSetup, (request) =>
    encodeSessionSetup(request, ntlmAnonymous()),
  );
  if (!second.ok) return second;
  const { status } = second.value;
  // Whoever may not come without a name has been answered by what knows the names.
  if (status === ntStatus.accessDenied && !guest) return done;
  if (status !== ntStatus.success) return refused("SESSION_SETUP", status);
  for (const share of shares) {
    const reply = await talk.ask(treeConnect, (request) => encodeTreeConnect(request, host, share));
    if (!reply.ok) return reply;
    const isThere =
      reply.value.status === ntStatus.success ||
      (reply.value.status === ntStatus.accessDenied && !guest);
    if (!isThere) return refused(`TREE_CONNECT ${share}`, reply.value.status);
  }
  return done;
}

function refused(operation: string, status: number): Outcome<never> {
  return failed("refused", operation, `status 0x${status.toString(16)}`);
}
