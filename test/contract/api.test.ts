/** The HTTP API over a real unix socket: every route, every refusal, and readers and writers that misbehave. */
import { chmodSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createConnection, createServer } from "node:net";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createApi } from "../../firmware-ts/daemon/api.ts";
import { streamBytesMax, streamsMax } from "../../firmware-ts/daemon/api-events.ts";
import { apiBodyBytesMax } from "../../firmware-ts/schema/api.ts";
import { commandAnswerSchema, statusSchema } from "../../firmware-ts/schema/status.ts";
import { callApi, errorOf } from "../support/api-call.ts";
import type { FakeDaemon } from "../support/fake-daemon.ts";
import { listeningDaemons } from "../support/listening-daemon.ts";
import { until } from "../support/until.ts";

const { directory, listen } = listeningDaemons("api");

let fake: FakeDaemon;
let socketPath: string;
beforeEach(async () => {
  ({ fake, socket: socketPath } = await listen());
});
afterEach(() => fake.api.close());

const call = (method: string, path: string, body?: string | object, headers = {}) =>
  callApi(socketPath, method, path, body, headers);

/** Opens an event stream and collects its text. */
function openStream(headers: Record<string, string> = {}, path = "/v1/events") {
  const stream = { text: "", ended: false, status: 0, close: () => {} };
  const outgoing = request({
    socketPath,
    path,
    headers: { accept: "text/event-stream", ...headers },
  });
  outgoing.on("error", () => {
    stream.ended = true;
  });
  outgoing.once("response", (incoming) => {
    stream.status = incoming.statusCode ?? 0;
    incoming.on("data", (chunk) => {
      stream.text += chunk;
    });
    incoming.on("error", () => {});
    incoming.once("close", () => {
      stream.ended = true;
    });
  });
  stream.close = () => outgoing.destroy();
  outgoing.end();
  return stream;
}

const sequencesIn = (text: string) => [...text.matchAll(/^id: (\d+)$/gm)].map((m) => Number(m[1]));

test("the document that is checked in is the one that the code makes", async () => {
  const path = join(import.meta.dirname, "../../docs/openapi.json");
  const made = JSON.parse(JSON.stringify(fake.api.document()));
  if (process.env.UPDATE) writeFileSync(path, `${JSON.stringify(made, null, 2)}\n`);
  const hint = "run with UPDATE=1, then `make format`, and read the difference";
  expect(JSON.parse(readFileSync(path, "utf8")), hint).toEqual(made);
  expect((await call("GET", "/v1/openapi.json")).json).toEqual(made);
});

test("it answers from the moment at which it says that it listens", async () => {
  const start = performance.now();
  const api = createApi(fake.backend);
  socketPath = join(directory, "another.sock");
  await api.listen(socketPath);
  console.log(`built and listening in ${(performance.now() - start).toFixed(1)} ms`);
  const answer = await call("GET", "/healthz");
  await api.close();
  expect(answer.status).toBe(200);
});

test("status, virtual servers, disks and panel show the daemon's own state", async () => {
  expect(statusSchema.parse((await call("GET", "/v1/status")).json)).toEqual(fake.status);
  expect((await call("GET", "/v1/vservers")).json).toEqual({
    virtualServers: fake.status.virtualServers,
  });
  expect((await call("GET", "/v1/vservers/beta")).json).toEqual(fake.status.virtualServers[1]);
  expect((await call("GET", "/v1/disks")).json).toEqual({ disks: fake.status.disks });
  expect((await call("GET", "/v1/panel")).json).toEqual(fake.view);
});

test("healthz, readyz and metrics", async () => {
  expect((await call("GET", "/healthz")).text).toBe("ok\n");
  expect((await call("GET", "/readyz")).json).toEqual({ ready: true, mode: "paired" });
  fake.status = { ...fake.status, mode: "joining" };
  const waiting = await call("GET", "/readyz");
  expect([waiting.status, errorOf(waiting).code]).toEqual([503, "notReady"]);
  const metrics = await call("GET", "/metrics");
  expect(metrics.text).toBe("dyad_epoch 7\n");
  expect(metrics.headers["content-type"]).toBe("text/plain; version=0.0.4; charset=utf-8");
});

test.each([
  ["/v1/takeover", "takeover", undefined],
  ["/v1/giveback", "giveback", undefined],
  ["/v1/vservers/beta/transfer", "transfer", "beta"],
])("%s asks the daemon, without a body with all defaults", async (path, kind, virtualServer) => {
  const answer = await call("POST", path);
  expect(answer.status).toBe(202);
  expect(commandAnswerSchema.parse(answer.json).accepted).toBe(true);
  const body = { dryRun: true, force: true, reason: "drill", by: "root" };
  expect((await call("POST", path, body)).status).toBe(200);
  expect(fake.asked).toEqual([
    { kind, virtualServer, request: { dryRun: false, force: false, reason: "" } },
    { kind, virtualServer, request: body },
  ]);
});

test("a refused command lists every veto; its dry run is an ordinary answer", async () => {
  const vetoes = [
    { code: "notPaired", severity: "hard" as const, message: "the pair is not complete" },
    { code: "linkRed", severity: "soft" as const, message: "the serial link is red" },
  ];
  fake.answer = async () => ({ accepted: false, vetoes, plan: [] });
  const refused = await call("POST", "/v1/takeover", {});
  expect(refused.status).toBe(409);
  expect(errorOf(refused)).toMatchObject({ code: "notPossible", vetoes });
  const dry = await call("POST", "/v1/takeover", { dryRun: true });
  expect([dry.status, dry.json]).toEqual([200, { accepted: false, vetoes, plan: [] }]);
});

test("a daemon that throws or rejects costs one answer and one line of the log", async () => {
  fake.answer = () => Promise.reject(new Error("broken inside"));
  const answer = await call("POST", "/v1/takeover", {});
  expect([answer.status, errorOf(answer).code]).toEqual([500, "internal"]);
  expect(answer.text).not.toContain("broken inside");
  expect(fake.logged.join()).toContain("broken inside");
  expect((await call("GET", "/v1/status")).status).toBe(200);
});

test("the panel's buttons", async () => {
  expect((await call("POST", "/v1/panel/press", { button: "ok" })).json).toEqual(fake.view);
  expect(fake.pressed).toEqual(["ok"]);
  expect((await call("POST", "/v1/panel/press", { button: "eject" })).status).toBe(400);
  expect((await call("POST", "/v1/panel/press")).status).toBe(400);
  expect(fake.pressed).toEqual(["ok"]);
});

const form = { "content-type": "application/x-www-form-urlencoded" };
const refusals: [string, string, string, string | object | undefined, object, number, string][] = [
  ["unknown path", "GET", "/v1/nothing", undefined, {}, 404, "notFound"],
  ["path outside", "GET", "/../../etc/passwd", undefined, {}, 404, "notFound"],
  ["wrong method", "DELETE", "/v1/status", undefined, {}, 405, "methodNotAllowed"],
  ["reading a command", "GET", "/v1/takeover", undefined, {}, 405, "methodNotAllowed"],
  ["unknown field", "POST", "/v1/takeover", { forse: true }, {}, 400, "badRequest"],
  ["wrong type", "POST", "/v1/takeover", { force: "yes" }, {}, 400, "badRequest"],
  ["not an object", "POST", "/v1/takeover", "[]", {}, 400, "badRequest"],
  ["null", "POST", "/v1/takeover", "null", {}, 400, "badRequest"],
  ["not JSON", "POST", "/v1/takeover", "{", {}, 400, "badRequest"],
  ["a form", "POST", "/v1/takeover", "force=1", form, 415, "unsupportedMediaType"],
  ["force without reason", "POST", "/v1/takeover", { force: true }, {}, 400, "badRequest"],
  ["a blank reason", "POST", "/v1/takeover", { force: true, reason: "  " }, {}, 400, "badRequest"],
  ["a long reason", "POST", "/v1/giveback", { reason: "x".repeat(201) }, {}, 400, "badRequest"],
  ["unknown server", "POST", "/v1/vservers/gamma/transfer", {}, {}, 404, "notFound"],
  ["impossible name", "GET", "/v1/vservers/..%2f..", undefined, {}, 400, "badRequest"],
  ["broken escape", "GET", "/v1/vservers/%ff", undefined, {}, 400, "badRequest"],
  ["unknown query", "GET", "/v1/events?since=1", undefined, {}, 400, "badRequest"],
  ["bad number", "GET", "/v1/events?after=-1", undefined, {}, 400, "badRequest"],
  ["large limit", "GET", "/v1/events?limit=1001", undefined, {}, 400, "badRequest"],
  [
    "bad Last-Event-ID",
    "GET",
    "/v1/events",
    undefined,
    { accept: "text/event-stream", "last-event-id": "abc" },
    400,
    "badRequest",
  ],
];

test.each(refusals)(
  "refused and counted: %s",
  async (_, method, path, body, headers, status, code) => {
    const answer = await call(method, path, body, headers as Record<string, string>);
    expect([answer.status, errorOf(answer).code]).toEqual([status, code]);
    expect(errorOf(answer).message).not.toBe("");
    expect(fake.api.counters.errors).toEqual({ [code]: 1 });
    expect(fake.asked).toEqual([]);
  },
);

test("the body limit: at the limit it is read, one byte more is refused, and so is an unknown length", async () => {
  const body = (bytes: number) => `{${" ".repeat(bytes - 2)}}`;
  expect((await call("POST", "/v1/takeover", body(apiBodyBytesMax))).status).toBe(202);
  const large = await call("POST", "/v1/takeover", body(apiBodyBytesMax + 1));
  expect([large.status, errorOf(large).code]).toEqual([413, "tooLarge"]);
  const chunked = await call("POST", "/v1/takeover", "{}", { "transfer-encoding": "chunked" });
  expect([chunked.status, errorOf(chunked).code]).toEqual([411, "badRequest"]);
  expect(fake.asked.length).toBe(1);
});

/** Sends raw bytes and returns what comes back until the connection ends. */
function raw(bytes: Uint8Array | string): Promise<string> {
  return new Promise((resolve) => {
    const socket = createConnection(socketPath, () => socket.end(bytes));
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk;
    });
    socket.on("error", () => {});
    socket.once("close", () => resolve(text));
  });
}

test("bytes that are not HTTP are answered with 400 and counted; the API goes on", async () => {
  expect(await raw("\x16\x03\x01 hello\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 .*"badRequest"/s);
  expect(await raw(`GET / HTTP/1.1\r\nx: ${"y".repeat(9000)}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 4/);
  expect(fake.api.counters.errors.badRequest).toBe(2);
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
      await raw(bytes);
    }),
    { numRuns: 100 },
  );
  expect((await call("GET", "/healthz")).status).toBe(200);
});

test("any JSON as a command is either understood or refused with 400", async () => {
  await fc.assert(
    fc.asyncProperty(fc.json({ maxDepth: 4 }), async (body) => {
      const { status } = await call("POST", "/v1/takeover", body);
      expect([202, 400, 413]).toContain(status);
    }),
    { numRuns: 100 },
  );
});

test("events as a list: after, limit, newest last", async () => {
  for (let i = 0; i < 5; i += 1) fake.emit({});
  const list = async (query: string) => {
    const { json } = await call("GET", `/v1/events${query}`);
    return (json as { events: { sequence: number }[] }).events.map((event) => event.sequence);
  };
  expect(await list("")).toEqual([1, 2, 3, 4, 5]);
  expect(await list("?after=3")).toEqual([4, 5]);
  expect(await list("?limit=2")).toEqual([4, 5]);
  expect(await list("?after=5")).toEqual([]);
});

test("events as a stream: the past, then each new one, resumed by Last-Event-ID", async () => {
  fake.emit({});
  fake.emit({ message: 'with "quotes"\nand a line end' });
  const first = openStream();
  await expect.poll(() => sequencesIn(first.text)).toEqual([1, 2]);
  fake.emit({});
  await expect.poll(() => sequencesIn(first.text)).toEqual([1, 2, 3]);
  const data = first.text.match(/^data: (.*)$/gm)?.map((line) => JSON.parse(line.slice(6)));
  expect(data?.[1].message).toBe('with "quotes"\nand a line end');
  const resumed = openStream({ "last-event-id": "2" });
  await expect.poll(() => sequencesIn(resumed.text)).toEqual([3]);
  const query = openStream({}, "/v1/events?after=1");
  await expect.poll(() => sequencesIn(query.text)).toEqual([2, 3]);
  for (const stream of [first, resumed, query]) stream.close();
  await expect.poll(() => fake.listeners()).toBe(0);
  expect(fake.api.counters.streams).toBe(0);
});

test("a stream's reader that does not read is cut off; others are not disturbed", async () => {
  const good = openStream();
  await expect.poll(() => good.status).toBe(200);
  const slow = createConnection(socketPath);
  slow.on("error", () => {});
  slow.write("GET /v1/events HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n");
  slow.pause();
  await expect.poll(() => fake.listeners()).toBe(2);
  const message = "x".repeat(8 * 1024);
  // The kernel's own buffers hold some hundred kilobytes beside ours.
  for (let sent = 0; fake.api.counters.streamsDropped === 0; sent += 1) {
    expect(sent * message.length).toBeLessThan(16 * streamBytesMax);
    fake.emit({ message });
    await new Promise(setImmediate);
  }
  await expect.poll(() => fake.listeners()).toBe(1);
  const last = fake.emit({ message: "still there" });
  await expect.poll(() => sequencesIn(good.text).at(-1)).toBe(last.sequence);
  expect(good.ended).toBe(false);
  good.close();
  slow.destroy();
});

test("a past larger than the bound is cut to its newest part, not the reader", async () => {
  for (let i = 0; i < 200; i += 1) fake.emit({ message: "x".repeat(4096) });
  const stream = openStream();
  await expect.poll(() => sequencesIn(stream.text).at(-1)).toBe(200);
  const sequences = sequencesIn(stream.text);
  expect(sequences.length).toBeGreaterThan(10);
  expect(sequences.length).toBeLessThan(200);
  expect(fake.api.counters.streamsDropped).toBe(0);
  stream.close();
});

test("one stream more than allowed is refused", async () => {
  const streams = Array.from({ length: streamsMax }, () => openStream());
  await expect.poll(() => streams.every((stream) => stream.status === 200)).toBe(true);
  const refused = await call("GET", "/v1/events", undefined, { accept: "text/event-stream" });
  expect([refused.status, errorOf(refused).code]).toEqual([503, "busy"]);
  for (const stream of streams) stream.close();
});

test("closing ends open streams and removes the socket", async () => {
  const stream = openStream();
  await expect.poll(() => stream.status).toBe(200);
  await fake.api.close();
  await expect.poll(() => stream.ended).toBe(true);
  expect(() => statSync(socketPath)).toThrow("ENOENT");
});

test("the socket is the owner's alone, whatever the mask", () => {
  expect(statSync(socketPath).mode & 0o777).toBe(0o600);
});

test("a socket that a dead daemon left is replaced; a live one and a plain file are not", async () => {
  const live = createApi(fake.backend);
  const refused = await live.listen(socketPath);
  expect(refused).toMatchObject({ ok: false, fault: { code: "refused" } });
  expect((await call("GET", "/healthz")).status).toBe(200);

  const file = join(directory, "file.sock");
  writeFileSync(file, "precious");
  expect(await live.listen(file)).toMatchObject({ ok: false, fault: { code: "refused" } });
  expect(readFileSync(file, "utf8")).toBe("precious");

  const missing = await live.listen(join(directory, "no/such/place.sock"));
  expect(missing).toMatchObject({ ok: false, fault: { code: "ioError" } });

  const stale = join(directory, "stale.sock");
  await leaveSocketBehind(stale);
  expect(statSync(stale).isSocket()).toBe(true);
  expect(await live.listen(stale)).toEqual({ ok: true, value: stale });
  await live.close();
});

/** Makes a socket file that nobody listens on, as a killed process leaves it. */
async function leaveSocketBehind(path: string): Promise<void> {
  const { renameSync } = await import("node:fs");
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(`${path}.bound`, resolve));
  renameSync(`${path}.bound`, path); // Node removes the name it bound, which is another one now
  await new Promise((resolve) => server.close(resolve));
  chmodSync(path, 0o644);
}

test("a daemon that makes no decision is reported as busy", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    fake.answer = () => new Promise(() => {});
    const pending = call("POST", "/v1/takeover", {});
    await until("asked", () => fake.asked.length === 1);
    await vi.advanceTimersByTimeAsync(10_000);
    const answer = await pending;
    expect([answer.status, errorOf(answer).code]).toEqual([503, "busy"]);
  } finally {
    vi.useRealTimers();
  }
});
