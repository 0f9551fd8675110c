/**
 * Messages that ride on beats: how two living controllers agree on a planned move, and tell each other of changed definitions. They are delivered once and in order
 * within a session, and forgotten when the partner is lost: the takeover then decides.
 */
import { z } from "zod";
import { virtualServersMax } from "./beat.ts";

const server = z
  .number()
  .int()
  .min(0)
  .max(virtualServersMax - 1);
const sequence = z.number().int().min(0).max(0xffff_ffff);
const whyBytesMax = 160;
const why = z.string().max(whyBytesMax);

/** Longest list of clients in a message (wire/clients): what the rest of it leaves of `messageBytesMax`. */
export const clientsCharsMax = 280;

export const messageSchema = z.discriminatedUnion("type", [
  /** "Give me this virtual server" (planned takeover, giveback, or nobody has it). */
  z.strictObject({ type: z.literal("request"), server, why }),
  /** "Will you take it?" `urgent`: the source cannot serve it any more. */
  z.strictObject({ type: z.literal("offer"), server, urgent: z.boolean(), why }),
  z.strictObject({ type: z.literal("ready"), server }),
  z.strictObject({ type: z.literal("refuse"), server, why }),
  /** "It is yours": gates closed, service stopped, nothing mounted, disks released. `clients`: those that the volume does not know. */
  z.strictObject({
    type: z.literal("go"),
    server,
    clients: z.string().max(clientsCharsMax).optional(),
  }),
  z.strictObject({ type: z.literal("started"), server }),
  /** "I could not start it, and I hold nothing of it": the source takes it back. */
  z.strictObject({ type: z.literal("failed"), server, why }),
  /** "I have written a definition of this number": it is to be read on the common volume. */
  z.strictObject({ type: z.literal("changed"), number: server, sequence }),
  /** "I have read it, or a later one." */
  z.strictObject({ type: z.literal("known"), number: server, sequence }),
]);
export type Message = z.infer<typeof messageSchema>;

/** A reason cut to what a message has room for, counted as it travels: some characters take six bytes there. */
export function shortWhy(text: string): string {
  const encoder = new TextEncoder();
  let short = text.slice(0, whyBytesMax);
  while (encoder.encode(JSON.stringify(short)).length - 2 > whyBytesMax) short = short.slice(0, -1);
  return short;
}

/** UTF-8 JSON; always within the room that a beat has. */
export function encodeMessage(message: Message): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(message));
}

/** Undefined when the bytes are not a message of this version: counted by the caller, never acted upon. */
export function decodeMessage(body: Uint8Array): Message | undefined {
  try {
    const parsed = messageSchema.safeParse(JSON.parse(new TextDecoder().decode(body)));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}
