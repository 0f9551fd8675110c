/** The built-in witness's server and its state: strangers, limits, two on one state, states that cannot be read or written. */
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { type EventEmitter, once } from "node:events";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { request } from "node:https";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TLSSocket } from "node:tls";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { emptyState } from "../../firmware-ts/core/witness/state.ts";
import {
  type WitnessRecord,
  type WitnessState,
  witnessLimits,
} from "../../firmware-ts/schema/witness.ts";
import { builtInWitness } from "../../hal/witness/built-in.ts";
import { identityOf, pskTls } from "../../hal/witness/psk.ts";
import { requestBytesMax, serveWitness, type WitnessServer } from "../../hal/witness/server.ts";
import { createState, openState, type StateStore } from "../../hal/witness/state-file.ts";
import { strangers } from "../../hal/witness/strangers.ts";
import { limitsMs } from "../support/limits.ts";

const witness = "1".repeat(32);
const key = new Uint8Array(32).fill(7);
const deadlineMs = limitsMs.condition;

let directory: string;
beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), "dyad-witness-")), "state");
});
afterEach(() => rmSync(join(directory, ".."), { recursive: true }));

function opened(): StateStore {
  const store = openState(directory);
  if (!store.ok) throw new Error(store.fault.message);
  return store.value;
}

/** As long as each part may be, in what JSON makes of it. */
function largestState(): WitnessState {
  const { volumesMax, pairsMax, grantedMax } = witnessLimits;
  const long = "g".repeat(64);
  const record: WitnessRecord = {
    version: Number.MAX_SAFE_INTEGER,
    base: long,
    standing: { kind: "held", by: "a", next: long, epoch: Number.MAX_SAFE_INTEGER },
    imposed: '"'.repeat(200),
    granted: Array.from({ length: grantedMax }, () => long),
  };
  const numbered = (letter: string, length: number) => (_: unknown, index: number) =>
    `${index}`.padStart(length, letter);
  const records = Array.from({ length: volumesMax }, numbered("v", 64)).map((name) => [
    name,
    record,
  ]);
  const names = ["alpha", ...Array.from({ length: pairsMax - 1 }, numbered("p", 32))];
  const pairs = names.map((name) => [name, Object.fromEntries(records)]);
  return { format: 1, witness, pairs: Object.fromEntries(pairs) };
}

describe("the state", () => {
  // Names that mean something to JavaScript are names like any other.
  const records: Record<string, WitnessRecord> = Object.fromEntries([
    ["constructor", { version: 3, base: "g1", standing: { kind: "free" } }],
    [
      "toString",
      { version: 1, base: "g2", standing: { kind: "held", by: "a", next: "g3", epoch: 4 } },
    ],
  ] satisfies [string, WitnessRecord][]);
  const next: WitnessState = { format: 1, witness, pairs: { alpha: records } };

  test("is read as it was kept, and leaves no draft behind", () => {
    expect(createState(directory, emptyState(witness))).toMatchObject({ ok: true });
    const store = opened();
    expect(store.state()).toEqual({ format: 1, witness, pairs: {} });
    store.keep(next);
    expect(store.state()).toBe(next);
    store.close();
    const again = opened();
    expect(again.state()).toEqual(next);
    again.close();
    expect(readdirSync(directory).toSorted()).toEqual(["lock", "state"]);
  });

  test("is not made where there is one", () => {
    createState(directory, emptyState(witness));
    expect(createState(directory, emptyState("2".repeat(32)))).toMatchObject({
      fault: { code: "refused", message: "there is a state already" },
    });
  });

  test("is opened by one witness at a time", () => {
    createState(directory, emptyState(witness));
    const store = opened();
    expect(openState(directory)).toMatchObject({
      fault: { code: "refused", message: "another witness is running on this state" },
    });
    store.close();
    opened().close();
  });

  test("that is missing is told with what to do, and not made", () => {
    expect(openState(directory)).toMatchObject({
      fault: { code: "badInput", message: expect.stringContaining("dyad witness init") },
    });
    mkdirSync(directory);
    expect(openState(directory).ok).toBe(false);
    expect(readdirSync(directory)).toEqual([]);
  });

  test("that was cut off or changed anywhere is refused", () => {
    createState(directory, emptyState(witness));
    const path = join(directory, "state");
    const whole = readFileSync(path);
    for (let length = 0; length < whole.length; length += 1) {
      writeFileSync(path, whole.subarray(0, length));
      expect(openState(directory), `${length} bytes`).toMatchObject({
        fault: { code: "badInput" },
      });
      const changed = Buffer.from(whole);
      changed[length] = (changed[length] ?? 0) ^ 1;
      writeFileSync(path, changed);
      expect(openState(directory), `byte ${length}`).toMatchObject({ fault: { code: "badInput" } });
    }
    writeFileSync(path, Buffer.concat([whole, whole]));
    expect(openState(directory)).toMatchObject({ fault: { code: "badInput" } });
    writeFileSync(path, whole);
    opened().close();
  });

  test("of another release is refused", () => {
    createState(directory, { ...emptyState(witness), format: 2 } as unknown as WitnessState);
    expect(openState(directory)).toMatchObject({
      fault: { code: "badInput", message: "it is not of this release" },
    });
  });

  test("that is as large as it may become is read again", () => {
    const state = largestState();
    createState(directory, state);
    const store = opened();
    expect(store.state()).toEqual(state);
    store.close();
  });

  test("that is too large is refused before it is read", () => {
    createState(directory, emptyState(witness));
    writeFileSync(join(directory, "state"), Buffer.alloc(64 * 1024 * 1024 + 1));
    expect(openState(directory)).toMatchObject({
      fault: { message: expect.stringContaining("more than a witness keeps") },
    });
  });
});

describe("the server", () => {
  let lines: string[];
  let store: StateStore;
  let server: WitnessServer;
  let fatal: unknown[];

  beforeEach(async () => {
    lines = [];
    fatal = [];
    createState(directory, emptyState(witness));
    store = opened();
    const served = await serveWitness({
      host: "127.0.0.1",
      port: 0,
      store: { ...store, keep: (state) => store.keep(state) },
      keys: new Map([["alpha", key]]),
      log: (line) => lines.push(line),
      fatal: (error) => fatal.push(error),
    });
    if (!served.ok) throw new Error(served.fault.message);
    server = served.value;
  });
  afterEach(async () => {
    await server.close();
    store.close();
  });

  const client = (pair = "alpha", own = key) =>
    builtInWitness({ host: "127.0.0.1", port: server.port, pair, key: own });

  /** A request as no client of ours makes it. */
  async function raw(path: string, body: string, more: { readonly session?: Buffer } = {}) {
    const options = {
      ...pskTls,
      host: "127.0.0.1",
      port: server.port,
      path,
      method: "POST",
      agent: false,
      checkServerIdentity: () => undefined,
      pskCallback: () => ({ psk: key, identity: identityOf("alpha") }),
      ...more,
    };
    const call = request(options);
    call.end(body);
    const [response] = await once(call, "response");
    const session = (response.socket as TLSSocket).getSession();
    let text = "";
    for await (const chunk of response) text += chunk;
    return { status: response.statusCode as number, text, session };
  }

  test("a wrong key and an unknown pair are refused, and told once", async () => {
    const wrong = new Uint8Array(32).fill(8);
    for (const each of [client("alpha", wrong), client("beta"), client("alpha", wrong)])
      expect(await each.list(deadlineMs)).toMatchObject({ fault: { code: "refused" } });
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/^refused 127\.0\.0\.1: no handshake \(ERR_SSL_/);
    // One of the same address with the right key is heard all the same.
    expect((await client().list(deadlineMs)).ok).toBe(true);
  });

  test("who speaks no TLS gets no further, and costs nobody else", async () => {
    const socket = connect(server.port, "127.0.0.1");
    socket.end("GET / HTTP/1.1\r\n\r\n");
    socket.resume();
    await once(socket, "close");
    await expect.poll(() => lines).toHaveLength(1);
    expect((await client().list(deadlineMs)).ok).toBe(true);
  });

  test("an address that holds too many connections gets no more of them", async () => {
    const sockets = Array.from({ length: 16 }, () => connect(server.port, "127.0.0.1"));
    await Promise.all(sockets.map((socket) => once(socket, "connect")));
    const call = client().list(deadlineMs);
    expect(await call).toMatchObject({ fault: { code: "ioError" } });
    for (const socket of sockets) socket.destroy();
    await expect.poll(async () => (await client().list(deadlineMs)).ok).toBe(true);
  });

  test("what is no question is answered as such", async () => {
    expect(await raw("/v1/ask", "rubbish")).toMatchObject({ status: 400 });
    expect(await raw("/v1/ask", '{"kind":"claim"}')).toMatchObject({ status: 400 });
    expect(await raw("/v1/else", "{}")).toMatchObject({ status: 404 });
    const look = JSON.stringify({ kind: "look", witness, volume: "v" });
    expect(await raw("/v1/ask", look.padEnd(requestBytesMax))).toMatchObject({ status: 200 });
    expect(await raw("/v1/ask", look.padEnd(requestBytesMax + 1))).toMatchObject({ status: 413 });
    expect(fatal).toEqual([]);
  });

  test("a pair with as many volumes as it may have is listed", async () => {
    const state = largestState();
    const records = state.pairs.alpha;
    store.keep({ ...state, pairs: { alpha: records ?? {} } });
    const listed = await client().list(deadlineMs);
    expect(listed.ok && listed.value.volumes).toHaveLength(witnessLimits.volumesMax);
  });

  test("a session that is taken up again shows its key again, and ends nobody's witness", async () => {
    const first = await raw("/v1/list", "{}");
    const again = { session: first.session as Buffer };
    expect(await raw("/v1/list", "{}", again)).toMatchObject({ status: 200 });
    expect((await client().list(deadlineMs)).ok).toBe(true);
  });

  test("SAFETY: a state that cannot be kept ends it, without an answer, and without another one", async () => {
    const propose = { witness, volume: "v", side: "a", base: "g1", version: 0 } as const;
    store.keep = () => {
      throw new Error("no space");
    };
    const asked = await client().ask({ kind: "register", ...propose }, deadlineMs);
    expect(asked).toMatchObject({ fault: { code: "ioError" } });
    expect(fatal).toEqual([new Error("no space")]);
    expect(await client().list(deadlineMs)).toMatchObject({ fault: { code: "ioError" } });
  });

  test("changes and refusals are told, looks are not", async () => {
    const asks = client();
    await asks.ask({ kind: "look", witness, volume: "v" }, deadlineMs);
    const base = { witness, volume: "v", base: "g1", version: 0 } as const;
    await asks.ask({ kind: "register", side: "a", ...base }, deadlineMs);
    await asks.ask({ kind: "claim", side: "b", next: "g2", epoch: 1, ...base }, deadlineMs);
    expect(lines).toEqual([
      "alpha register v by a from g1: done",
      "alpha claim v by b from g1: stale",
    ]);
  });

  test("a listener that fails later is told once, and goes on", async () => {
    // Node tells the server that a request came to; only so a test gets hold of it.
    const came = (message: unknown) => {
      const { server: listener } = message as { server: EventEmitter };
      for (let times = 0; times < 2; times += 1) listener.emit("error", new Error("accept EMFILE"));
    };
    subscribe("http.server.request.start", came);
    try {
      expect((await client().list(deadlineMs)).ok).toBe(true);
    } finally {
      unsubscribe("http.server.request.start", came);
    }
    expect(lines).toEqual(["listener: accept EMFILE"]);
    expect((await client().list(deadlineMs)).ok).toBe(true);
  });

  test("a port that is taken is told", async () => {
    const second = await serveWitness({
      host: "127.0.0.1",
      port: server.port,
      store,
      keys: new Map(),
      log: () => undefined,
      fatal: () => undefined,
    });
    expect(second).toMatchObject({ fault: { code: "ioError" } });
  });
});

describe("strangers", () => {
  test("are slowed down after a burst, and heard again later", () => {
    const { admits, failed } = strangers(() => undefined);
    for (let tries = 0; tries < 10; tries += 1) {
      expect(admits("x", 0)).toBe(true);
      failed("x", "why", 0);
    }
    expect(admits("x", 0)).toBe(false);
    expect(admits("y", 0)).toBe(true);
    expect(admits("x", 999)).toBe(false);
    expect(admits("x", 1000)).toBe(true);
  });

  test("of many addresses only so many lines are written in an hour", () => {
    const lines: string[] = [];
    const { failed } = strangers((line) => lines.push(line));
    for (let address = 0; address < 1000; address += 1) failed(`${address}`, "why", 0);
    expect(lines).toHaveLength(100);
    expect(lines.at(-1)).toBe("more strangers are not told for an hour");
    failed("later", "why", 3_600_001);
    expect(lines).toHaveLength(101);
  });

  test("are forgotten when there are too many of them, the quietest first", () => {
    const lines: string[] = [];
    const { failed } = strangers((line) => lines.push(line));
    failed("first", "why", 0);
    failed("second", "why", 0);
    for (let address = 0; address < 255; address += 1) failed(`${address}`, "why", 7_200_000);
    const before = lines.length;
    failed("second", "why", 20_000_000);
    expect(lines.length).toBe(before);
    failed("first", "why", 20_000_000);
    expect(lines.length).toBe(before + 1);
  });
});

test("a state is for its owner only", () => {
  createState(directory, emptyState(witness));
  const modes = ["", "state", "lock"].map((name) => statSync(join(directory, name)).mode & 0o777);
  expect(modes).toEqual([0o700, 0o600, 0o600]);
});
