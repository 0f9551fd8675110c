/**
 * What waits to be published: the latest state of each topic (an older one is worthless and is replaced), and a bounded
 * queue of events (the oldest is dropped and counted). Pure bookkeeping: no I/O, time is an argument.
 *
 * A message that was taken is either settled (acknowledged, or refused for good) or, when the session ends before that,
 * put back; QoS 1 means that a subscriber may then see it twice.
 */
import type { OperatorEvent } from "../schema/status.ts";
import type { StateMessage } from "./topics.ts";

/** Topics of one controller: 64 virtual servers, 3 links, status; with room for what has just gone. */
export const outboxStatesMax = 128;
export const outboxEventsMax = 256;
/** A message larger than this is dropped: no status of 64 virtual servers comes near it. */
export const outboxPayloadBytesMax = 128 * 1024;
/** State whose substance has not changed is published again this often, for its ages. */
const refreshMs = 10_000;

export interface OutMessage {
  readonly topic: string;
  readonly payload: string;
  readonly retain: boolean;
}

interface Slot {
  readonly message: StateMessage;
  readonly queuedMs: number;
  waiting: boolean;
}

export interface Outbox {
  readonly dropped: () => number;
  readonly setState: (message: StateMessage, nowMs: number) => void;
  /** Topics that are no more: a message without payload takes what the broker retains of each away (MQTT 5, 3.3.1.3). */
  readonly keepOnly: (topics: ReadonlySet<string>) => void;
  readonly addEvent: (topic: string, event: OperatorEvent) => void;
  /** The next message to send: states first, because they are few and say where things stand. */
  readonly take: () => OutMessage | undefined;
  /** Returns a message that was taken and not settled; a newer state of the same topic wins over it. */
  readonly putBack: (message: OutMessage) => void;
  /** A new session: the broker may have lost what was retained, so every state is sent again. */
  readonly resendStates: () => void;
}

export function createOutbox(): Outbox {
  const states = new Map<string, Slot>();
  let events: OutMessage[] = [];
  let dropped = 0;

  /** What takes a topic away is sent once, and then nothing is known of it any more. */
  function goneOf(topic: string): Slot {
    return { message: { topic, payload: "", substance: "" }, queuedMs: 0, waiting: true };
  }

  function push(event: OutMessage, place: "front" | "back"): void {
    if (place === "front") events.unshift(event);
    else events.push(event);
    if (events.length <= outboxEventsMax) return;
    dropped += events.length - outboxEventsMax;
    events = events.slice(-outboxEventsMax);
  }

  return {
    dropped: () => dropped,
    setState(message, nowMs) {
      const slot = states.get(message.topic);
      const stale = slot === undefined || nowMs - slot.queuedMs >= refreshMs;
      if (!stale && slot.message.substance === message.substance) return;
      if (message.payload.length > outboxPayloadBytesMax) dropped += 1;
      else if (slot === undefined && states.size >= outboxStatesMax) dropped += 1;
      else states.set(message.topic, { message, queuedMs: nowMs, waiting: true });
    },
    keepOnly(topics) {
      for (const topic of states.keys()) if (!topics.has(topic)) states.set(topic, goneOf(topic));
    },
    addEvent(topic, event) {
      const payload = toJson(event);
      if (payload === undefined || payload.length > outboxPayloadBytesMax) dropped += 1;
      else push({ topic, payload, retain: false }, "back");
    },
    take() {
      for (const slot of states.values()) {
        if (!slot.waiting) continue;
        slot.waiting = false;
        const { topic, payload } = slot.message;
        if (payload === "") states.delete(topic);
        return { topic, payload, retain: true };
      }
      return events.shift();
    },
    putBack(message) {
      if (!message.retain) push(message, "front");
      else {
        const slot = states.get(message.topic);
        if (slot !== undefined) slot.waiting = true;
        else if (message.payload === "") states.set(message.topic, goneOf(message.topic));
      }
    },
    resendStates() {
      for (const slot of states.values()) slot.waiting = true;
    },
  };
}

/** An event's detail is of any kind: what JSON cannot say (a cycle, a bigint) must not throw into the main loop. */
function toJson(event: OperatorEvent): string | undefined {
  try {
    return JSON.stringify(event);
  } catch {
    return undefined;
  }
}
