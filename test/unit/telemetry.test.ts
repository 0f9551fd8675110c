/** The publisher's bookkeeping: what is replaced, what is dropped, what is sent again. And the judge of a broker's bytes. */
import { expect, test } from "vitest";
import {
  createPacketJudge,
  inboundPacketBytesMax,
  otherPacketsPerSecondMax,
} from "../../firmware-ts/telemetry/broker-guard.ts";
import {
  createOutbox,
  outboxEventsMax,
  outboxPayloadBytesMax,
  outboxStatesMax,
} from "../../firmware-ts/telemetry/outbox.ts";
import { stateMessages } from "../../firmware-ts/telemetry/topics.ts";
import { healthyStatus } from "../support/fake-daemon.ts";

const state = (topic: string, payload: string, substance = payload) => ({
  topic,
  payload,
  substance,
});
const event = (sequence: number, detail?: Record<string, unknown>) => ({
  sequence,
  at: "2026-11-05T12:00:00.000Z",
  controller: "a" as const,
  severity: "info" as const,
  code: "test",
  message: "",
  ...(detail ? { detail } : {}),
});

function drain(outbox: ReturnType<typeof createOutbox>) {
  const taken = [];
  for (let next = outbox.take(); next !== undefined; next = outbox.take()) taken.push(next);
  return taken;
}
const sequences = (messages: { payload: string }[]) =>
  messages.map((message) => JSON.parse(message.payload).sequence);

test("only the latest state of a topic is kept", () => {
  const outbox = createOutbox();
  outbox.setState(state("a", "1"), 0);
  outbox.setState(state("b", "2"), 0);
  outbox.setState(state("a", "3"), 1);
  expect(drain(outbox).map((message) => message.payload)).toEqual(["3", "2"]);
  expect(outbox.dropped()).toBe(0);
});

test("a state that differs only in its ages waits ten seconds", () => {
  const outbox = createOutbox();
  outbox.setState(state("a", "age 1", "same"), 0);
  drain(outbox);
  outbox.setState(state("a", "age 2", "same"), 9_999);
  expect(drain(outbox)).toEqual([]);
  outbox.setState(state("a", "age 3", "same"), 10_000);
  expect(drain(outbox).map((message) => message.payload)).toEqual(["age 3"]);
  outbox.setState(state("a", "changed"), 10_001);
  expect(drain(outbox).map((message) => message.payload)).toEqual(["changed"]);
});

test("a topic that is no more is taken away once, also when that has to be said again, and may come again", () => {
  const outbox = createOutbox();
  for (const topic of ["a", "b"]) outbox.setState(state(topic, "1"), 0);
  drain(outbox);
  outbox.keepOnly(new Set(["a"]));
  outbox.keepOnly(new Set(["a"]));
  const [gone, ...others] = drain(outbox);
  expect([gone, others]).toEqual([{ topic: "b", payload: "", retain: true }, []]);
  if (gone) outbox.putBack(gone);
  expect(drain(outbox)).toEqual([gone]);
  outbox.resendStates();
  expect(drain(outbox).map(({ topic }) => topic)).toEqual(["a"]);
  outbox.setState(state("b", "1"), 1);
  if (gone) outbox.putBack(gone);
  expect(drain(outbox)).toEqual([{ topic: "b", payload: "1", retain: true }]);
});

test("topics that come and go leave room for others", () => {
  const outbox = createOutbox();
  for (let i = 0; i < 3 * outboxStatesMax; i += 1) {
    outbox.setState(state(`t${i}`, "1"), i);
    outbox.keepOnly(new Set([`t${i}`]));
    drain(outbox);
  }
  expect(outbox.dropped()).toBe(0);
});

test("events: at the limit all are kept, one more drops the oldest, counted", () => {
  const outbox = createOutbox();
  for (let i = 1; i <= outboxEventsMax; i += 1) outbox.addEvent("e", event(i));
  expect(outbox.dropped()).toBe(0);
  outbox.addEvent("e", event(outboxEventsMax + 1));
  expect(outbox.dropped()).toBe(1);
  const kept = sequences(drain(outbox));
  expect([kept.length, kept[0], kept.at(-1)]).toEqual([outboxEventsMax, 2, outboxEventsMax + 1]);
});

test("what was taken and put back comes first again, unless something newer replaced it", () => {
  const outbox = createOutbox();
  outbox.setState(state("a", "old"), 0);
  for (const i of [1, 2, 3]) outbox.addEvent("e", event(i));
  const [taken, first, second] = [outbox.take(), outbox.take(), outbox.take()];
  outbox.setState(state("a", "new"), 1);
  for (const message of [second, first, taken]) if (message) outbox.putBack(message);
  const again = drain(outbox);
  expect(again[0]?.payload).toBe("new");
  expect(sequences(again.slice(1))).toEqual([1, 2, 3]);
});

test("putting back into a full queue drops the oldest, which is what was put back", () => {
  const outbox = createOutbox();
  outbox.addEvent("e", event(1));
  const taken = outbox.take();
  for (let i = 2; i <= outboxEventsMax + 1; i += 1) outbox.addEvent("e", event(i));
  if (taken) outbox.putBack(taken);
  expect(sequences(drain(outbox))[0]).toBe(2);
  expect(outbox.dropped()).toBe(1);
});

test("a new session sends every state again, and no event twice", () => {
  const outbox = createOutbox();
  outbox.setState(state("a", "1"), 0);
  outbox.addEvent("e", event(1));
  drain(outbox);
  outbox.resendStates();
  expect(drain(outbox).map((message) => message.topic)).toEqual(["a"]);
});

test("too many topics, too large a payload, and an event that JSON cannot say are dropped and counted", () => {
  const outbox = createOutbox();
  for (let i = 0; i < outboxStatesMax; i += 1) outbox.setState(state(`t${i}`, "x"), 0);
  expect(outbox.dropped()).toBe(0);
  outbox.setState(state("one more", "x"), 0);
  expect(outbox.dropped()).toBe(1);
  outbox.setState(state("t0", "x".repeat(outboxPayloadBytesMax)), 1);
  expect(outbox.dropped()).toBe(1);
  outbox.setState(state("t0", "x".repeat(outboxPayloadBytesMax + 1)), 2);
  expect(outbox.dropped()).toBe(2);
  const cyclic: Record<string, unknown> = {};
  cyclic.self = cyclic;
  outbox.addEvent("e", event(1, cyclic));
  outbox.addEvent("e", event(2, { big: 1n }));
  expect(outbox.dropped()).toBe(4);
  expect(drain(outbox).length).toBe(outboxStatesMax);
});

test("the topics of a status", () => {
  const messages = stateMessages("dyad/17/a", healthyStatus());
  expect(messages.map((message) => message.topic)).toEqual([
    "dyad/17/a/status",
    "dyad/17/a/vserver/alpha",
    "dyad/17/a/vserver/beta",
    "dyad/17/a/link/serial",
    "dyad/17/a/link/network",
    "dyad/17/a/link/disk",
  ]);
  expect(JSON.parse(messages[0]?.payload ?? "")).toEqual(healthyStatus());
  const later = healthyStatus();
  later.uptimeMs += 1000;
  later.links = later.links.map((link) => ({ ...link, silentMs: 5 }));
  // What is used changes all the time; that is what metrics are for.
  later.virtualServers = later.virtualServers.map((server) => ({ ...server, usage: {} }));
  expect(stateMessages("dyad/17/a", later).map((message) => message.substance)).toEqual(
    messages.map((message) => message.substance),
  );
});

const connack = [0x20, 3, 0, 0, 0];
const puback = [0x40, 2, 0, 1];
const pingresp = [0xd0, 0];
const repeat = (packet: number[], times: number) => Array(times).fill(packet).flat();
/** The fixed header of a packet of a given length (MQTT 5.0, 1.5.5). */
const header = (first: number, length: number) =>
  length < 128 ? [first, length] : [first, (length & 0x7f) | 0x80, length >> 7];

test.each<[string, number[], string | undefined]>([
  ["what a publisher expects", [...connack, ...puback, ...pingresp, 0xe0, 0], undefined],
  ["an answer before CONNACK", pingresp, "packet type 13 before CONNACK"],
  ["TLS or HTTP", [...Buffer.from("HTTP/1.1 400")], "packet type 4 before CONNACK"],
  ["a second CONNACK", [...connack, ...connack], "unexpected packet type 2"],
  ["a message though nothing is subscribed", [...connack, 0x30, 2], "unexpected packet type 3"],
  ["SUBACK", [...connack, 0x90, 3], "unexpected packet type 9"],
  ["AUTH", [...connack, 0xf0, 0], "unexpected packet type 15"],
  [
    "a length without end",
    [...connack, 0x40, 0x80, 0x80, 0x80, 0x80],
    "a remaining length of more than 4 bytes",
  ],
  ["a packet at the limit", [...connack, ...header(0x40, inboundPacketBytesMax)], undefined],
  ["acknowledgements of both publications", [...connack, ...puback, ...puback], undefined],
  [
    "one acknowledgement more",
    [...connack, ...puback, ...puback, ...puback],
    "an acknowledgement that nobody waits for",
  ],
  ["pings at the limit", [...connack, ...repeat(pingresp, otherPacketsPerSecondMax)], undefined],
  [
    "a ping too many",
    [...connack, ...repeat(pingresp, otherPacketsPerSecondMax + 1)],
    "more packets than answers need",
  ],
  [
    "a packet above the limit",
    [...connack, ...header(0x40, inboundPacketBytesMax + 1)],
    `a packet of ${inboundPacketBytesMax + 1} bytes, expected at most ${inboundPacketBytesMax}`,
  ],
])("the judge of inbound bytes: %s", (_, bytes, complaint) => {
  const twoPublications = () => {
    let owed = 2;
    return createPacketJudge(() => owed-- > 0);
  };
  expect(twoPublications().check(Uint8Array.from(bytes), 5000)).toBe(complaint);
  // The same bytes one by one.
  const judge = twoPublications();
  const complaints = bytes.map((byte) => judge.check(Uint8Array.of(byte), 5000));
  expect(complaints.find((each) => each !== undefined)).toBe(complaint);
});

test("the judge counts pings by the second", () => {
  const judge = createPacketJudge(() => false);
  judge.check(Uint8Array.from(connack), 0);
  const second = Uint8Array.from(repeat(pingresp, otherPacketsPerSecondMax));
  expect([judge.check(second, 1000), judge.check(second, 2000)]).toEqual([undefined, undefined]);
  expect(judge.check(Uint8Array.from(pingresp), 2999)).toBe("more packets than answers need");
});
