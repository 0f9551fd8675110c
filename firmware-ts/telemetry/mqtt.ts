/**
 * The MQTT publisher: state and events of one controller, for a fleet's broker. It may fail in any way a network service
 * can, and the pair must not notice.
 *
 *     publish(status) ─┐ keeps the latest, at most once per `coalesceMs`        ┌─▶ session ──▶ broker
 *                      ├──▶ outbox (bounded; latest state, oldest event goes) ──┤   window of 8
 *     event(event) ────┘                                                        └── back-off 1 s … 60 s when it ends
 *
 * Obligations: no call throws, waits, or does more than note what was said; memory is bounded whatever the broker does; a
 * message taken by a session that ended is sent again by the next one.
 */
import { performance } from "node:perf_hooks";
import type { Config } from "../schema/config.ts";
import type { OperatorEvent, Status } from "../schema/status.ts";
import { createOutbox, type OutMessage } from "./outbox.ts";
import { openSession, type PublishResult, type Session } from "./session.ts";
import { offline, online, stateMessages, topicBase } from "./topics.ts";

/** Times that tests shorten. */
export interface PublisherTuning {
  readonly coalesceMs: number;
  readonly connectTimeoutMs: number;
  /** A broker that owes an acknowledgement for this long is given up. */
  readonly ackTimeoutMs: number;
  readonly keepaliveSeconds: number;
  readonly backoffMsMin: number;
  readonly backoffMsMax: number;
  /** How long `close` may take to say the last things. */
  readonly closeTimeoutMs: number;
}

const defaultTuning: PublisherTuning = {
  coalesceMs: 100,
  connectTimeoutMs: 10_000,
  ackTimeoutMs: 10_000,
  keepaliveSeconds: 5,
  backoffMsMin: 1_000,
  backoffMsMax: 60_000,
  closeTimeoutMs: 500,
};

/** Messages that may wait for an acknowledgement at a time; every broker's Receive Maximum is higher in practice. */
const windowMax = 8;

export interface PublisherSetup {
  readonly config: Config;
  readonly clientId: string;
  readonly log: (message: string) => void;
  readonly tuning?: Partial<PublisherTuning> | undefined;
}

export interface PublisherCounters {
  readonly connected: boolean;
  /** Sessions that came about. */
  readonly connects: number;
  /** Messages that the broker acknowledged. */
  readonly published: number;
  /** Events lost because the queue was full, and messages that were too large. */
  readonly dropped: number;
  /** Messages that the broker refused. */
  readonly refused: number;
}

export interface Publisher {
  /** Notes the state; the latest one is published soon. */
  readonly publish: (status: Status) => void;
  readonly event: (event: OperatorEvent) => void;
  readonly counters: () => PublisherCounters;
  /** Says what is still to be said, `offline` last, within `closeTimeoutMs`. Never rejects. */
  readonly close: () => Promise<void>;
}

/** Starts to connect at once. Only for a configuration with an `mqtt` table. */
export function createPublisher(setup: PublisherSetup): Publisher {
  const broker = setup.config.mqtt;
  if (broker === undefined) throw new Error("createPublisher: expected a configuration with mqtt");
  const publisher = new BrokerPublisher(setup, broker);
  publisher.open();
  return publisher;
}

class BrokerPublisher implements Publisher {
  readonly #setup: PublisherSetup;
  readonly #broker: NonNullable<Config["mqtt"]>;
  readonly #tuning: PublisherTuning;
  readonly #base: string;
  readonly #outbox = createOutbox();
  readonly #inFlight = new Set<OutMessage>();
  readonly #counted = { connects: 0, published: 0, refused: 0 };
  #session: Session | undefined;
  #connected = false;
  #connectedMs = 0;
  #closing = false;
  #latest: Status | undefined;
  #backoffMs: number;
  #lastReason = "";
  #pumpQueued = false;
  #flushTimer: NodeJS.Timeout | undefined;
  #retryTimer: NodeJS.Timeout | undefined;
  #ackTimer: NodeJS.Timeout | undefined;
  /** Called when nothing is queued or in flight any more, or the session is gone. */
  #whenQuiet: (() => void) | undefined;

  constructor(setup: PublisherSetup, broker: NonNullable<Config["mqtt"]>) {
    this.#setup = setup;
    this.#broker = broker;
    this.#tuning = { ...defaultTuning, ...setup.tuning };
    this.#base = topicBase(setup.config);
    this.#backoffMs = this.#tuning.backoffMsMin;
  }

  publish(status: Status): void {
    if (this.#closing) return;
    this.#latest = status;
    this.#flushTimer ??= setTimeout(() => this.#flush(), this.#tuning.coalesceMs);
  }

  event(event: OperatorEvent): void {
    if (this.#closing) return;
    this.#outbox.addEvent(`${this.#base}/events`, event);
    if (this.#pumpQueued) return;
    this.#pumpQueued = true;
    // Sent on the next turn: the caller is the main loop, in the middle of a decision perhaps.
    setImmediate(() => {
      this.#pumpQueued = false;
      this.#pump();
    });
  }

  counters(): PublisherCounters {
    return { ...this.#counted, connected: this.#connected, dropped: this.#outbox.dropped() };
  }

  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    clearTimeout(this.#retryTimer);
    let deadline: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      deadline = setTimeout(resolve, this.#tuning.closeTimeoutMs);
    });
    await Promise.race([this.#sayGoodbye(), late]);
    clearTimeout(deadline);
    this.#session?.destroy("closed");
  }

  open(): void {
    const { clientId } = this.#setup;
    const will = this.#availability(offline);
    this.#session = openSession(
      { ...this.#tuning, broker: this.#broker, clientId, will },
      { connected: () => this.#onConnected(), ended: (reason) => this.#onEnded(reason) },
    );
  }

  #availability(payload: string): OutMessage {
    return { topic: `${this.#base}/availability`, payload, retain: true };
  }

  #onConnected(): void {
    this.#connected = true;
    this.#connectedMs = performance.now();
    this.#counted.connects += 1;
    this.#lastReason = "";
    this.#setup.log(`mqtt: connected to ${this.#broker.url}`);
    this.#outbox.resendStates();
    this.#send(this.#availability(online));
    this.#pump();
  }

  #onEnded(reason: string): void {
    const { backoffMsMin, backoffMsMax } = this.#tuning;
    // Only a session that outlived the last wait ends the back-off: a broker that accepts and drops is no better than none.
    if (this.#connected && performance.now() - this.#connectedMs >= this.#backoffMs)
      this.#backoffMs = backoffMsMin;
    this.#connected = false;
    this.#session = undefined;
    clearTimeout(this.#ackTimer);
    for (const message of [...this.#inFlight].reverse()) this.#outbox.putBack(message);
    this.#inFlight.clear();
    this.#whenQuiet?.();
    if (this.#closing) return;
    if (reason !== this.#lastReason)
      this.#setup.log(`mqtt: no session with ${this.#broker.url}: ${reason}`);
    this.#lastReason = reason;
    // Jitter keeps a fleet from returning to a restarted broker in one instant.
    this.#retryTimer = setTimeout(() => this.open(), this.#backoffMs * (0.75 + Math.random() / 2));
    this.#backoffMs = Math.min(this.#backoffMs * 2, backoffMsMax);
  }

  #flush(): void {
    clearTimeout(this.#flushTimer);
    this.#flushTimer = undefined;
    if (this.#latest === undefined) return;
    const nowMs = performance.now();
    const messages = stateMessages(this.#base, this.#latest);
    for (const message of messages) this.#outbox.setState(message, nowMs);
    this.#outbox.keepOnly(new Set(messages.map(({ topic }) => topic)));
    this.#latest = undefined;
    this.#pump();
  }

  /** Sends as much as the window allows. */
  #pump(): void {
    while (this.#connected && this.#inFlight.size < windowMax) {
      const message = this.#outbox.take();
      if (message === undefined) break;
      this.#send(message);
    }
    if (this.#inFlight.size === 0) this.#whenQuiet?.();
  }

  #send(message: OutMessage): void {
    this.#inFlight.add(message);
    if (this.#inFlight.size === 1) this.#expectAck();
    this.#session?.publish(message, (result) => this.#onSettled(message, result));
  }

  #onSettled(message: OutMessage, result: PublishResult): void {
    this.#inFlight.delete(message);
    if (result === "acknowledged") this.#counted.published += 1;
    else {
      if (this.#counted.refused === 0) this.#setup.log(`mqtt: the broker refuses ${message.topic}`);
      this.#counted.refused += 1;
    }
    this.#expectAck();
    this.#pump();
  }

  /** From now on, or from the last acknowledgement: while something is in flight, the next one is due in time. */
  #expectAck(): void {
    clearTimeout(this.#ackTimer);
    if (this.#inFlight.size === 0) return;
    const { ackTimeoutMs } = this.#tuning;
    this.#ackTimer = setTimeout(
      () => this.#session?.destroy(`no acknowledgement within ${ackTimeoutMs} ms`),
      ackTimeoutMs,
    );
  }

  async #sayGoodbye(): Promise<void> {
    this.#flush();
    await this.#quiet();
    if (this.#connected) this.#send(this.#availability(offline));
    await this.#quiet();
    this.#session?.leave();
  }

  #quiet(): Promise<void> {
    return new Promise((resolve) => {
      this.#whenQuiet = resolve;
      this.#pump();
    });
  }
}
