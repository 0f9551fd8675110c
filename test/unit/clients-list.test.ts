/** Who is connected to a virtual server: what its volume learns, and what only the partner is told. */
import { describe, expect, test } from "vitest";
import { ClientList } from "../../firmware-ts/daemon/clients.ts";
import type { VirtualServerConfig } from "../../firmware-ts/schema/config.ts";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { unpackClients } from "../../firmware-ts/wire/clients.ts";
import type { Connection } from "../../hal/port/addresses.ts";
import type { Machine, ServerPlace } from "../../hal/port/machine.ts";

const server = {
  name: "alpha",
  addresses: ["10.0.0.100/24"],
  volumes: [{ disk: "d1" }],
} as unknown as VirtualServerConfig;

const from = (remotePort: number, localPort = 2049): Connection => ({
  localAddress: "10.0.0.100",
  localPort,
  remoteAddress: "10.0.0.11",
  remotePort,
});

const onPort = (connections: readonly Connection[], port: number) =>
  connections.filter(({ localPort }) => localPort === port);

/** A machine of which only connections and service state are there. */
function machine() {
  const now = {
    connected: [] as Connection[],
    onVolume: [] as readonly Connection[],
    writes: 0,
    /** What the kernel says instead. */
    asked: (_port: number): Outcome<Connection[]> | undefined => undefined,
    save: (): Promise<Outcome> => Promise.resolve(done),
  };
  const parts: Partial<Machine> = {
    servicePorts: () => [2049, 445],
    mountPath: () => "/volume",
    place: () =>
      ({
        addresses: {
          connections: (_: unknown, port: number) =>
            Promise.resolve(now.asked(port) ?? good(onPort(now.connected, port))),
        },
      }) as unknown as ServerPlace,
    states: {
      load: () => Promise.resolve({ state: { connections: now.onVolume } }),
      async save(_path, { connections }) {
        now.writes += 1;
        const saved = await now.save();
        if (saved.ok) now.onVolume = connections;
        return saved;
      },
    },
  };
  return { now, list: new ClientList(parts as Machine, server, () => undefined) };
}

/** The same where what the last owner left has been read, and the service runs. */
async function serving() {
  const { now, list } = machine();
  list.mounted();
  await list.inherit(undefined);
  list.serve(true);
  return { now, list };
}

const ports = (text: string | undefined) =>
  unpackClients(text ?? "", ["10.0.0.100"]).map(({ remotePort }) => remotePort);

describe("the list of clients", () => {
  test("on the volume is the last owner's until it has been read, once for each mount", async () => {
    const { now, list } = machine();
    now.onVolume = [from(1)];
    now.connected = [from(2)];
    list.mounted();
    list.serve(true);
    await list.save();
    expect(now.writes).toBe(0);
    expect(await list.inherit(undefined)).toEqual([from(1)]);
    expect(await list.inherit(undefined)).toEqual([]);
    await list.save();
    expect(now.onVolume).toEqual([from(2)]);
    list.mounted();
    expect(await list.inherit(undefined)).toEqual([from(2)]);
  });

  test("of those that were cut off when the service was stopped is told once, when it is started again in place", async () => {
    const { now, list } = await serving();
    now.connected = [from(1), from(2)];
    await list.save();
    // One has come since, one has gone, and may have heard nothing.
    now.connected = [from(2), from(3)];
    await list.cutOff();
    now.connected = [];
    await list.save();
    expect(now.onVolume).toEqual([from(1), from(2)]);
    list.serve(true);
    expect(await list.inherit(undefined)).toEqual([from(1), from(2), from(3)]);
    expect(await list.inherit(undefined)).toEqual([]);
  });

  test("that the kernel does not tell when the service is stopped is what it told last", async () => {
    const { now, list } = await serving();
    now.connected = [from(1)];
    await list.save();
    now.asked = () => failed("ioError", "test", "injected");
    await list.cutOff();
    // It was stopped twice: in vain the first time, say.
    await list.cutOff();
    expect(await list.inherit(undefined)).toEqual([from(1)]);
  });

  test("of those that were cut off is the next owner's business once the volume is given up", async () => {
    const { now, list } = await serving();
    now.connected = [from(1)];
    await list.save();
    await list.cutOff();
    list.mounted();
    now.onVolume = [from(9)];
    expect(await list.inherit(undefined)).toEqual([from(9)]);
  });

  test("is written when it changes, by one writer at a time, and only while the service runs", async () => {
    const { now, list } = await serving();
    now.connected = [from(1), from(2)];
    await Promise.all([list.save(), list.save()]);
    now.connected = [from(2), from(1)];
    await list.save();
    expect(now.writes).toBe(1);
    now.connected = [];
    await list.save();
    expect(now.writes).toBe(2);
    list.serve(false);
    now.connected = [from(3)];
    await list.save();
    expect(now.writes).toBe(2);
  });

  test("is complete on the volume when the service is given up in good order", async () => {
    const { now, list } = await serving();
    let letGo: (outcome: Outcome) => void = () => undefined;
    now.save = () => new Promise((resolve) => (letGo = resolve));
    now.connected = [from(1)];
    void list.save();
    await expect.poll(() => now.writes).toBe(1);
    // Connected while the write was under way.
    now.connected = [from(1), from(2)];
    const finished = list.finish();
    now.save = () => Promise.resolve(done);
    letGo(done);
    await finished;
    expect(now.onVolume).toEqual([from(1), from(2)]);
  });

  test("goes to the partner as far as the volume did not learn it", async () => {
    const { now, list } = await serving();
    now.connected = [from(1)];
    await list.save();
    expect(await list.unsaved()).toBeUndefined();
    now.save = () => Promise.resolve(failed("ioError", "save", "no path"));
    now.connected = [from(1), from(2), from(3)];
    await list.save();
    const told = await list.unsaved();
    expect(ports(told)).toEqual([2, 3]);

    const partner = machine();
    partner.now.onVolume = [from(1)];
    expect(await partner.list.inherit(told)).toEqual([from(2), from(3), from(1)]);
  });

  test("knows the clients of each service, who may have the same port of one machine", async () => {
    const { now, list } = await serving();
    now.connected = [from(1), from(1, 445)];
    await list.save();
    expect(now.onVolume).toEqual([from(1), from(1, 445)]);
    now.connected = [from(1, 445)];
    await list.save();
    expect(now.onVolume).toEqual([from(1, 445)]);
    now.connected = [from(1, 445), from(2, 445)];
    const partner = machine();
    expect(await partner.list.inherit(await list.unsaved())).toEqual([from(2, 445)]);
  });

  test("stays as it was when the kernel does not tell of one of them", async () => {
    const { now, list } = await serving();
    now.connected = [from(1), from(2, 445)];
    await list.save();
    now.connected = [from(1)];
    now.asked = (port) => (port === 445 ? failed("ioError", "ask", "no answer") : undefined);
    await list.save();
    expect(now.onVolume).toEqual([from(1), from(2, 445)]);
    expect(now.writes).toBe(1);
  });

  test("goes to the partner also when the volume proves to be lost in the middle of a stop in good order", async () => {
    const { now, list } = await serving();
    now.connected = [from(1)];
    await list.save();
    now.save = () => Promise.resolve(failed("ioError", "save", "no path"));
    now.connected = [from(1), from(2)];
    await list.finish();
    await list.idle(30);
    // The service is gone by then, and its connections with it.
    now.connected = [];
    expect(ports(await list.unsaved())).toEqual([2]);
  });

  test("that cannot be written holds up nothing for longer than it may", async () => {
    const { now, list } = await serving();
    now.save = () => new Promise(() => undefined);
    now.connected = [from(1)];
    void list.save();
    await expect.poll(() => now.writes).toBe(1);
    expect(ports(await list.unsaved())).toEqual([1]);
    const start = performance.now();
    await list.idle(30);
    expect(performance.now() - start).toBeGreaterThanOrEqual(29);
  });
});
