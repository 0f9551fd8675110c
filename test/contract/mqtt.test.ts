/** The MQTT publisher against a real mosquitto, and against brokers that are absent, slow, frozen, refusing or babbling. */
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { Config } from "../../firmware-ts/schema/config.ts";
import { parseConfigText } from "../../firmware-ts/schema/config-text.ts";
import type { OperatorEvent } from "../../firmware-ts/schema/status.ts";
import {
  createPublisher,
  type Publisher,
  type PublisherTuning,
} from "../../firmware-ts/telemetry/mqtt.ts";
import { outboxEventsMax } from "../../firmware-ts/telemetry/outbox.ts";
import { healthyStatus } from "../support/fake-daemon.ts";
import { limitsMs } from "../support/limits.ts";
import { type Broker, brokerUser, prepareBroker, subscribe } from "../support/mosquitto.ts";
import { until } from "../support/until.ts";

/** Towards a broker that does its work, be it slowly: a session given up on the way would say everything again. */
const patient: Partial<PublisherTuning> = {
  coalesceMs: 20,
  connectTimeoutMs: limitsMs.condition,
  ackTimeoutMs: limitsMs.condition,
  keepaliveSeconds: limitsMs.condition / 1000,
  backoffMsMin: 20,
  backoffMsMax: 100,
  closeTimeoutMs: limitsMs.condition,
};
/** Towards one that does not. */
const quick: Partial<PublisherTuning> = {
  ...patient,
  connectTimeoutMs: 400,
  ackTimeoutMs: 400,
  keepaliveSeconds: 1,
  closeTimeoutMs: 200,
};

let broker: Broker;
const cleanups: (() => unknown)[] = [];

beforeAll(async () => {
  broker = await prepareBroker();
  await broker.start();
});
afterAll(() => broker.remove());
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const example = readFileSync(join(import.meta.dirname, "../../docs/dyad.toml.example"), "utf8");

/** The example's configuration with another pair id (so that tests do not see each other's topics) and broker. */
function configure(pair: number, mqtt: Partial<NonNullable<Config["mqtt"]>>): Config {
  const outcome = parseConfigText(example, "dyad.toml.example");
  if (!outcome.ok) throw new Error(outcome.fault.message);
  return {
    ...outcome.value,
    pair: { ...outcome.value.pair, id: pair },
    mqtt: {
      url: broker.url,
      topicPrefix: "dyad",
      username: brokerUser,
      passwordFile: broker.passwordFile,
      ...mqtt,
    },
  };
}

function start(config: Config, tuning: Partial<PublisherTuning> = patient) {
  const logged: string[] = [];
  const publisher = createPublisher({
    config,
    clientId: `dyad-test-${config.pair.id}`,
    log: (message) => logged.push(message),
    tuning,
  });
  cleanups.push(() => publisher.close());
  return { publisher, logged };
}

function event(sequence: number): OperatorEvent {
  return {
    sequence,
    at: "2026-11-05T12:00:00.000Z",
    controller: "a",
    severity: "warning",
    code: "link.red",
    message: "the serial link is red",
  };
}

async function watch() {
  const subscriber = await subscribe(broker);
  cleanups.push(() => subscriber.end());
  return {
    ...subscriber,
    of: (topic: string) => subscriber.received.filter((message) => message.topic === topic),
    last: (topic: string) =>
      subscriber.received.findLast((message) => message.topic === topic)?.text,
  };
}

test("availability, state of every part, and events, QoS 1; state is retained, events are not", async () => {
  const live = await watch();
  const { publisher } = start(configure(101, {}));
  publisher.publish(healthyStatus());
  publisher.event(event(1));
  await expect.poll(() => publisher.counters().published).toBe(8);
  await expect.poll(() => live.received.length).toBe(8);
  expect(live.received.every((message) => message.qos === 1)).toBe(true);

  const late = await watch();
  await expect.poll(() => late.received.length).toBeGreaterThanOrEqual(7);
  const kept = late.received.filter((message) => message.topic.startsWith("dyad/101/"));
  expect(kept.every((message) => message.retained)).toBe(true);
  expect(kept.map((message) => message.topic).toSorted()).toEqual([
    "dyad/101/a/availability",
    "dyad/101/a/link/disk",
    "dyad/101/a/link/network",
    "dyad/101/a/link/serial",
    "dyad/101/a/status",
    "dyad/101/a/vserver/alpha",
    "dyad/101/a/vserver/beta",
  ]);
  expect(late.last("dyad/101/a/availability")).toBe("online");
  expect(JSON.parse(late.last("dyad/101/a/status") ?? "")).toEqual(healthyStatus());
  expect(JSON.parse(live.last("dyad/101/a/events") ?? "")).toEqual(event(1));

  // One that is deleted is retained no more.
  publisher.publish({
    ...healthyStatus(),
    virtualServers: healthyStatus().virtualServers.slice(0, 1),
  });
  await expect.poll(() => live.last("dyad/101/a/vserver/beta")).toBe("");
  const later = await watch();
  await expect.poll(() => later.last("dyad/101/a/vserver/alpha")).toBeDefined();
  expect(later.last("dyad/101/a/vserver/beta")).toBeUndefined();
});

test("many states in a moment become one message; unchanged parts are not repeated", async () => {
  const live = await watch();
  const { publisher } = start(configure(102, {}));
  publisher.publish(healthyStatus());
  await expect.poll(() => live.of("dyad/102/a/status").length).toBe(1);
  for (let epoch = 8; epoch <= 100; epoch += 1) publisher.publish({ ...healthyStatus(), epoch });
  await expect.poll(() => live.of("dyad/102/a/status").length).toBe(2);
  expect(JSON.parse(live.last("dyad/102/a/status") ?? "").epoch).toBe(100);
  publisher.publish({ ...healthyStatus(), epoch: 101 });
  await expect.poll(() => live.of("dyad/102/a/status").length).toBe(3);
  expect(live.of("dyad/102/a/vserver/alpha").length).toBe(1);
});

test("closing says what is left, then offline, and is no last will", async () => {
  const live = await watch();
  const { publisher } = start(configure(103, {}));
  await expect.poll(() => publisher.counters().connected).toBe(true);
  publisher.publish(healthyStatus());
  publisher.event(event(7));
  await publisher.close();
  await expect.poll(() => live.last("dyad/103/a/availability")).toBe("offline");
  const topics = live.received.filter((message) => message.topic.startsWith("dyad/103/"));
  expect(topics.at(-1)?.topic).toBe("dyad/103/a/availability");
  expect(live.of("dyad/103/a/status").length).toBe(1);
  expect(live.of("dyad/103/a/events").length).toBe(1);
  expect(live.of("dyad/103/a/availability").map((message) => message.text)).toEqual([
    "online",
    "offline",
  ]);
});

test("a controller that dies is offline by its last will", async () => {
  const live = await watch();
  const script = `
    import { createPublisher } from "./firmware-ts/telemetry/mqtt.ts";
    const publisher = createPublisher({
      config: ${JSON.stringify(configure(104, {}))}, clientId: "dyad-dying", log: () => {},
    });
    setInterval(() => { if (publisher.counters().published > 0) process.kill(process.pid, "SIGKILL"); }, 10);
  `;
  const root = join(import.meta.dirname, "../..");
  const { signal } = spawnSync(process.execPath, ["--input-type=module-typescript", "-e", script], {
    cwd: root,
    timeout: 2 * limitsMs.condition,
  });
  expect(signal).toBe("SIGKILL");
  await expect
    .poll(() => live.of("dyad/104/a/availability").map((message) => message.text))
    .toEqual(["online", "offline"]);
});

test("messages of many lengths leave nothing behind in memory", () => {
  const script = `
    import { setImmediate } from "node:timers/promises";
    import { createPublisher } from "./firmware-ts/telemetry/mqtt.ts";
    const publisher = createPublisher({
      config: ${JSON.stringify(configure(117, {}))}, clientId: "dyad-lengths", log: () => {},
    });
    while (!publisher.counters().connected) await setImmediate();
    for (let length = 1; length <= 300; length += 1) {
      // What else a controller does meanwhile: more than one pool of small buffers.
      for (let i = 0; i < 8; i += 1) Buffer.from("-".repeat(10_000));
      const { published } = publisher.counters();
      publisher.event({ ...${JSON.stringify(event(1))}, message: "x".repeat(length) });
      while (publisher.counters().published === published) await setImmediate();
    }
    gc();
    console.log(process.memoryUsage().arrayBuffers);
    process.exit();
  `;
  const words = ["--expose-gc", "--input-type=module-typescript", "-e", script];
  const root = join(import.meta.dirname, "../..");
  const { stdout, stderr } = spawnSync(process.execPath, words, {
    cwd: root,
    encoding: "utf8",
    timeout: 2 * limitsMs.condition,
  });
  // Each length held 64 kB: 19 MB.
  expect(Number(stdout), stderr).toBeGreaterThan(0);
  expect(Number(stdout)).toBeLessThan(4_000_000);
});

test("TLS: the broker's certificate is checked against the configured CA", async () => {
  const { caFile, tlsUrl } = broker;
  const trusted = start(configure(105, { url: tlsUrl, caFile }));
  const named = start(configure(106, { url: tlsUrl.replace("127.0.0.1", "localhost"), caFile }));
  const untrusted = start(configure(107, { url: tlsUrl }));
  await expect.poll(() => trusted.publisher.counters().published).toBe(1);
  await expect.poll(() => named.publisher.counters().published).toBe(1);
  await expect.poll(() => untrusted.logged.join()).toMatch(/self-signed|unable to/);
  expect(untrusted.publisher.counters().connects).toBe(0);
});

test("a wrong password is told, and mended by writing the right one to the file", async () => {
  const passwordFile = join(broker.directory, "changing");
  writeFileSync(passwordFile, "wrong\n");
  const { publisher, logged } = start(configure(108, { passwordFile }));
  await expect.poll(() => logged.join()).toMatch(/not authorized|bad user/i);
  writeFileSync(passwordFile, readFileSync(broker.passwordFile));
  await expect.poll(() => publisher.counters().connected).toBe(true);
});

test.each([
  ["a password file that is missing", { passwordFile: "/nonexistent/secret" }, /ENOENT/],
  ["a password file that is too large", { passwordFile: "/dev/zero" }, /at most 1024 bytes/],
  [
    "a CA file that is no certificate",
    { caFile: "/etc/hostname", url: "mqtts://127.0.0.1:1" },
    /./,
  ],
  [
    "a name that does not resolve",
    { url: "mqtt://no-such-host.invalid:1883" },
    /ENOTFOUND|EAI_AGAIN/,
  ],
  ["an address that is none", { url: "mqtt://:::" }, /Invalid URL/],
  ["a port out of range", { url: "mqtt://127.0.0.1:99999" }, /Invalid URL/],
])("%s is told and tried again, nothing else", async (_, mqtt, reason) => {
  const { publisher, logged } = start(configure(109, mqtt));
  await expect.poll(() => logged.join("\n")).toMatch(reason);
  expect(publisher.counters().connects).toBe(0);
});

test("messages that the broker refuses are counted and not tried for ever", async () => {
  const { publisher, logged } = start(configure(110, { topicPrefix: "forbidden" }));
  publisher.publish(healthyStatus());
  await expect.poll(() => publisher.counters().refused).toBe(7);
  expect(publisher.counters()).toMatchObject({ published: 0, connected: true });
  expect(logged.filter((line) => line.includes("refuses")).length).toBe(1);
});

test("a broker that dies and returns gets the state anew, and the events of the meantime in order", async () => {
  const passwordFile = join(broker.directory, "returning");
  const password = readFileSync(broker.passwordFile);
  writeFileSync(passwordFile, password);
  const { publisher } = start(configure(111, { passwordFile }));
  publisher.publish(healthyStatus());
  await expect.poll(() => publisher.counters().published).toBe(7);
  await broker.kill();
  await expect.poll(() => publisher.counters().connected).toBe(false);
  for (let sequence = 1; sequence <= 30; sequence += 1) publisher.event(event(sequence));
  // Events are not retained: who subscribes after the publisher is back would miss some of them.
  writeFileSync(passwordFile, "not yet\n");
  await broker.start();
  const live = await watch();
  writeFileSync(passwordFile, password);
  await expect.poll(() => live.of("dyad/111/a/events").length).toBe(30);
  const sequences = live
    .of("dyad/111/a/events")
    .map((message) => JSON.parse(message.text).sequence);
  expect(sequences).toEqual(Array.from({ length: 30 }, (_, i) => i + 1));
  await expect.poll(() => live.last("dyad/111/a/availability")).toBe("online");
  expect(JSON.parse(live.last("dyad/111/a/status") ?? "")).toEqual(healthyStatus());
});

test.each([
  ["what it does not acknowledge", { ackTimeoutMs: 400 }, "no acknowledgement within 400 ms"],
  // An uncaught exception of the library would fail this file; in a controller it would be a takeover.
  ["the library, with messages waiting", { keepaliveSeconds: 1 }, "no session with"],
])(
  "a broker that freezes is given up by %s, and used again when it thaws",
  async (_, given, told) => {
    const { publisher, logged } = start(configure(112, {}), { ...patient, ...given });
    await expect.poll(() => publisher.counters().published).toBeGreaterThanOrEqual(1);
    broker.process().kill("SIGSTOP");
    try {
      publisher.publish(healthyStatus());
      await expect.poll(() => logged.join()).toContain(told);
    } finally {
      broker.process().kill("SIGCONT");
    }
    await expect.poll(() => publisher.counters().published).toBeGreaterThanOrEqual(8);
  },
);

/** A broker of one behaviour; returns its URL. */
async function fakeBroker(behave: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    behave(socket);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return `mqtt://127.0.0.1:${address.port}`;
}

const connack = Buffer.from([0x20, 3, 0, 0, 0]);
/** PUBACKs for every message id the publisher could use soon. */
const pubacks = Buffer.concat(
  Array.from({ length: 64 }, (_, id) => Buffer.from([0x40, 2, id >> 8, id & 0xff])),
);

/** Writes for ever, as fast as the reader takes it; in large pieces, because it shares the loop with what is measured. */
function babble(socket: Socket, bytes: Buffer): void {
  const piece = Buffer.concat(Array(Math.ceil(65536 / bytes.length)).fill(bytes));
  const more = () => {
    while (!socket.destroyed && socket.write(piece));
  };
  socket.on("drain", more);
  more();
}

const brokenBrokers: [string, (socket: Socket) => void][] = [
  ["frozen from the start: accepts TCP and says nothing", () => {}],
  ["frozen and not reading", (socket) => socket.pause()],
  ["frozen after CONNACK", (socket) => socket.write(connack)],
  ["frozen after CONNACK, and not reading", (socket) => socket.pause().write(connack)],
  ["hanging up at once", (socket) => socket.destroy()],
  ["hanging up after CONNACK", (socket) => socket.end(connack)],
  ["resetting", (socket) => socket.resetAndDestroy()],
  ["refusing by reason code", (socket) => socket.end(Buffer.from([0x20, 3, 0, 0x88, 0]))],
  ["dribbling a CONNACK", (socket) => setTimeout(() => socket.write(connack.subarray(0, 2)), 50)],
  ["speaking HTTP", (socket) => socket.write("HTTP/1.1 400 Bad Request\r\n\r\n")],
  ["babbling zeros", (socket) => babble(socket, Buffer.alloc(65536))],
  [
    "babbling messages after CONNACK",
    (socket) => {
      socket.write(connack);
      babble(socket, Buffer.from([0x30, 5, 0, 1, 0x61, 0, 0x62]));
    },
  ],
  [
    "babbling acknowledgements that nobody waits for",
    (socket) => {
      socket.write(connack);
      babble(socket, pubacks);
    },
  ],
  [
    "announcing a packet of 256 MiB",
    (socket) => {
      socket.write(Buffer.from([0x20, 0xff, 0xff, 0xff, 0x7f]));
      babble(socket, Buffer.alloc(65536));
    },
  ],
];

test.each(brokenBrokers)("a broker %s: the caller does not notice", async (_, behave) => {
  let attempts = 0;
  const url = await fakeBroker((socket) => {
    attempts += 1;
    behave(socket);
  });
  const { publisher } = start(configure(113, { url }), quick);
  await expectUndisturbed(publisher, () => attempts >= 3);
});

test("no broker at all: the caller does not notice", async () => {
  const { publisher } = start(configure(114, { url: "mqtt://127.0.0.1:1" }), quick);
  const deadlineMs = performance.now() + 500;
  await expectUndisturbed(publisher, () => performance.now() > deadlineMs);
});

/** Processor time of this thread so far, ms: a machine that does something else meanwhile does not count. */
function cpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

/** Publishes as the daemon does until `seen`, then floods; no call may take long, nor keep the loop from its next turn. */
async function expectUndisturbed(publisher: Publisher, seen: () => boolean): Promise<void> {
  const turnsMs: number[] = [];
  let sequence = 0;
  const call = () => {
    sequence += 1;
    publisher.publish({ ...healthyStatus(), epoch: sequence });
    publisher.event(event(sequence));
  };
  let last = cpuMs();
  const turning = setInterval(() => {
    const now = cpuMs();
    turnsMs.push(now - last);
    last = now;
  }, 1);
  const ticking = setInterval(call, 5);
  try {
    await until("attempts enough", () => turnsMs.length > 100 && seen());
  } finally {
    clearInterval(ticking);
    clearInterval(turning);
  }
  const heapBefore = process.memoryUsage().heapUsed;
  const before = cpuMs();
  for (let i = 0; i < 20_000; i += 1) call();
  const callMs = (cpuMs() - before) / 20_000;
  const grownBytes = process.memoryUsage().heapUsed - heapBefore;
  expect(callMs).toBeLessThan(0.1);
  // Without the slowest hundredth, garbage collection mostly: a broker that holds up the loop does so again and again.
  const turn99Ms = turnsMs.toSorted((a, b) => a - b)[Math.floor(turnsMs.length * 0.99)];
  console.log(`processor time: ${callMs.toFixed(3)} ms a call, p99 of a turn ${turn99Ms} ms`);
  expect(turn99Ms).toBeLessThan(25);
  expect(publisher.counters().dropped).toBeGreaterThanOrEqual(20_000 - outboxEventsMax - 100);
  expect(grownBytes).toBeLessThan(64 * 1024 * 1024);
  // It ends, whatever the broker does.
  await publisher.close();
}

test("whatever answers a broker gives, correct in frame or not, nothing is thrown", async () => {
  let answers: Buffer[] = [];
  const url = await fakeBroker((socket) => {
    socket.once("data", () => {
      for (const answer of answers) socket.write(answer);
      socket.end();
    });
  });
  const body = fc.uint8Array({ maxLength: 40 });
  const packet = fc
    .tuple(fc.constantFrom(0x20, 0x40, 0x42, 0xd0, 0xe0, 0xe5), body)
    .map(([first, bytes]) => Buffer.from([first, bytes.length, ...bytes]));
  const well = fc.constantFrom(connack, Buffer.from([0x40, 2, 0, 1]), Buffer.from([0xd0, 0]));
  await fc.assert(
    fc.asyncProperty(
      fc.boolean(),
      fc.array(fc.oneof(packet, well), { maxLength: 6 }),
      async (polite, packets) => {
        answers = polite ? [connack, ...packets] : packets;
        const ended: string[] = [];
        const publisher = createPublisher({
          config: configure(115, { url }),
          clientId: "dyad-fuzz",
          log: (message) => ended.push(message),
          tuning: { ...quick, backoffMsMin: 600_000, backoffMsMax: 600_000 },
        });
        publisher.publish(healthyStatus());
        await until("its end is told", () => ended.join().includes("no session"));
        await publisher.close();
      },
    ),
    { numRuns: 150 },
  );
});

test("attempts back off", async () => {
  const times: number[] = [];
  const url = await fakeBroker((socket) => {
    times.push(performance.now());
    socket.destroy();
  });
  start(configure(116, { url }), { ...patient, backoffMsMin: 20, backoffMsMax: 200 });
  await expect.poll(() => times.length).toBeGreaterThanOrEqual(7);
  const gaps = times.slice(1).map((time, i) => time - (times[i] ?? 0));
  // 20, 40, 80, 160, 200, 200, each give or take a quarter.
  expect(gaps[0]).toBeGreaterThan(14);
  expect(gaps[3]).toBeGreaterThan(119);
  expect(gaps[5]).toBeGreaterThan(149);
});
