/** The remote device at other people's servers, and the access program before other people's clients: QEMU, libnbd, OpenSSL's certificates. */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { encodeReplicaName } from "../../firmware-ts/wire/nbd/replica-name.ts";
import { AccessProgram } from "../../hal/block/access/access-program.ts";
import { FileDevice } from "../../hal/block/file-device.ts";
import { type NbdAddress, NbdServer } from "../../hal/block/nbd-server.ts";
import { NbdTls } from "../../hal/block/nbd-tls.ts";
import type { RemoteOptions } from "../../hal/block/remote/options.ts";
import { RemoteDevice } from "../../hal/block/remote/remote-device.ts";
import { freePort } from "../support/free-port.ts";
import { limitsMs } from "../support/limits.ts";
import { askingTls, pairKey, servingTls } from "../support/pair-tls.ts";
import { until } from "../support/until.ts";
import { must, newFolder, run } from "./block-lab.ts";

const sizeBytes = 32 * 1024 * 1024;
const pieceBytes = 1024 * 1024;
const patient = {
  ...{ connectTimeoutMs: limitsMs.condition, requestTimeoutMs: limitsMs.condition },
  ...{ backOffMs: 5, backOffMaxMs: 50 },
};
const hash = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");

let folder: string;
const endings: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  folder = await newFolder();
  await writeFile(join(folder, "keys.psk"), `controller-a:${pairKey.toString("hex")}\n`);
  await writeFile(
    join(folder, "wrong.psk"),
    `controller-a:${Buffer.alloc(32, 1).toString("hex")}\n`,
  );
});
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function image(name: string, content?: Buffer): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, content ?? "");
  await truncate(path, sizeBytes);
  return path;
}

async function remoteOf(options: RemoteOptions): Promise<RemoteDevice> {
  const opened = await RemoteDevice.open({ timing: patient, ...options }, limitsMs.condition);
  if (!opened.ok) throw new Error(opened.fault.message);
  endings.push(() => opened.value.close());
  return opened.value;
}

/** Writes a whole disk in pieces at once, and reads it back. */
async function writeAll(device: RemoteDevice, data: Buffer): Promise<void> {
  const offsets = Array.from({ length: sizeBytes / pieceBytes }, (_, at) => at * pieceBytes);
  const piece = (at: number) => data.subarray(at, at + pieceBytes);
  const written = offsets.map((at) => device.write(at, piece(at), { fua: false }));
  for (const outcome of await Promise.all(written)) expect(outcome).toMatchObject({ ok: true });
  expect(await device.flush()).toMatchObject({ ok: true });
  for (const at of offsets) {
    const read = await device.read(at, pieceBytes);
    expect(read.ok && read.value.equals(piece(at))).toBe(true);
  }
}

function stopper(child: ChildProcess): () => Promise<void> {
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  return async () => {
    child.kill("SIGKILL");
    await ended;
  };
}

describe("at qemu-nbd", () => {
  test.each(["unix", "tcp", "tcp with a key"] as const)("over %s", async (transport) => {
    const file = await image("qemu.img");
    const port = await freePort();
    const socket = join(folder, `qemu-${port}.sock`);
    const keyed = transport === "tcp with a key";
    const where = transport === "unix" ? ["-k", socket] : ["-b", "127.0.0.1", "-p", `${port}`];
    const creds = `tls-creds-psk,id=tls,dir=${folder},endpoint=server`;
    const tls = keyed ? ["--object", creds, "--tls-creds", "tls"] : [];
    const options = ["-t", "-e", "8", "-f", "raw", "-x", "disk", ...where, ...tls, file];
    endings.push(stopper(spawn("qemu-nbd", options, { stdio: ["ignore", "ignore", "inherit"] })));
    if (transport === "unix") await until("qemu-nbd listens", () => existsSync(socket));
    const address = transport === "unix" ? { path: socket } : { host: "127.0.0.1", port };
    const device = await remoteOf({
      ...{ address, exportName: () => "disk", limits: { connections: 4 } },
      ...(keyed ? { tls: askingTls } : {}),
    });
    expect(device.sizeBytes).toBe(sizeBytes);
    const data = randomBytes(sizeBytes);
    await writeAll(device, data);
    expect(await device.writeZeroes(0, pieceBytes, { fua: true, mayTrim: true })).toMatchObject({
      ok: true,
    });
    expect(await device.trim(pieceBytes, pieceBytes)).toMatchObject({ ok: true });
    expect(await device.read(0, pieceBytes)).toMatchObject({ value: Buffer.alloc(pieceBytes) });
    expect(hash((await readFile(file)).subarray(2 * pieceBytes))).toBe(
      hash(data.subarray(2 * pieceBytes)),
    );
  });
});

interface Offered {
  readonly access: AccessProgram;
  readonly server: NbdServer;
  readonly address: NbdAddress;
  readonly port: number;
  readonly faults: string[];
}

/** An access program over a file, on TCP. */
async function offer(file: string, tls: NbdTls): Promise<Offered> {
  const opened = await FileDevice.open(file, { blockSizeBytes: 512 });
  if (!opened.ok) throw new Error(opened.fault.message);
  const faults: string[] = [];
  const server = new NbdServer({
    tls,
    onFault: (reason, _, peer) => faults.push(`${reason} ${peer}`),
  });
  const device = opened.value;
  const offered = AccessProgram.offer({ server, device, volume: "home", generation: "g1" });
  if (!offered.ok) throw new Error(offered.fault.message);
  offered.value.admit();
  const listening = await server.listen({ host: "127.0.0.1", port: 0 });
  if (!listening.ok || !("port" in listening.value)) throw new Error("no port");
  endings.push(
    () => device.close(),
    () => server.close(),
  );
  const { port } = listening.value;
  return { access: offered.value, server, address: listening.value, port, faults };
}

const name = (session: string, generation = "g1") =>
  encodeReplicaName({ volume: "home", generation, session });

describe("an access program before libnbd", () => {
  const uri = (port: number, session: string, keys = "keys.psk", generation = "g1") =>
    `nbds://controller-a@127.0.0.1:${port}/${name(session, generation)}?tls-psk-file=${join(folder, keys)}`;

  test("serves who has the key, both ways and over several connections", async () => {
    const data = randomBytes(sizeBytes);
    const [source, replica, back] = [
      await image("in", data),
      await image("replica"),
      await image("out"),
    ];
    const { port, faults } = await offer(replica, servingTls);
    const [info] = JSON.parse(
      await must("nbdinfo", "--json", "--no-content", uri(port, "s1")),
    ).exports;
    expect(info).toMatchObject({ "export-size": sizeBytes, can_multi_conn: true, can_fua: true });
    await must("nbdcopy", "--connections=4", source, uri(port, "s2"));
    await must("nbdcopy", "--connections=4", uri(port, "s3"), back);
    expect(hash(await readFile(back))).toBe(hash(data));
    expect(hash(await readFile(replica))).toBe(hash(data));
    expect(faults).toEqual([]);
  });

  test("tells nothing to a wrong key, nor without one, and refuses an old generation", async () => {
    const { port, faults, access } = await offer(await image("replica"), servingTls);
    expect((await run("nbdinfo", uri(port, "s1", "wrong.psk"))).code).not.toBe(0);
    expect(faults.splice(0)).toEqual([expect.stringMatching(/^tlsFailed .*127\.0\.0\.1$/)]);
    for (const plain of [`nbd://127.0.0.1:${port}/${name("s1")}`, `nbd://127.0.0.1:${port}`]) {
      const ran = await run("nbdinfo", "--list", plain);
      expect(ran.code).not.toBe(0);
      expect(ran.out).not.toMatch(/home|g1|export=/);
    }
    expect(faults.splice(0)).not.toEqual([]);
    const old = await run("nbdinfo", uri(port, "s1", "keys.psk", "g0"));
    expect(old.code).not.toBe(0);
    // Asked by INFO, by GO, or by both.
    expect(access.status.refusedGenerations).toBeGreaterThan(0);
    expect(access.status.sessions).toBe(0);
  });
});

describe("certificates of one authority", () => {
  interface Holder {
    readonly certificate: string;
    readonly key: string;
  }
  const made: Record<string, Holder> = {};
  let authority: string;

  /** An authority, the two controllers, and somebody else whom it knows, too; one who has a certificate of his own. */
  beforeAll(async () => {
    const at = (file: string) => join(folder, file);
    const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    for (const own of ["ca", "self"])
      await must(
        "openssl",
        "req",
        "-x509",
        ...curve,
        "-subj",
        `/CN=${own}`,
        "-keyout",
        at(`${own}.key`),
        "-out",
        at(`${own}.pem`),
      );
    for (const who of ["controller-a", "controller-b", "other"]) {
      await writeFile(at(`${who}.ext`), `subjectAltName=DNS:${who}\n`);
      await must(
        "openssl",
        "req",
        ...curve,
        "-subj",
        `/CN=${who}`,
        "-keyout",
        at(`${who}.key`),
        "-out",
        at(`${who}.csr`),
      );
      const signed = ["-CA", at("ca.pem"), "-CAkey", at("ca.key"), "-CAcreateserial", "-days", "2"];
      await must(
        "openssl",
        "x509",
        "-req",
        "-in",
        at(`${who}.csr`),
        ...signed,
        "-extfile",
        at(`${who}.ext`),
        "-out",
        at(`${who}.pem`),
      );
    }
    const text = (file: string) => readFile(at(file), "utf8");
    for (const who of ["controller-a", "controller-b", "other", "self"])
      made[who] = { certificate: await text(`${who}.pem`), key: await text(`${who}.key`) };
    authority = await text("ca.pem");
  });

  function tls(who: string, peerName: string): NbdTls {
    const holder = made[who];
    if (holder === undefined) throw new Error(who);
    const known = NbdTls.create({ kind: "certificate", authority, ...holder, peerName });
    if (!known.ok) throw new Error(known.fault.message);
    return known.value;
  }

  const served = tls.bind(undefined, "controller-b", "controller-a");

  test("let the partner in", async () => {
    const { address } = await offer(await image("replica"), served());
    const device = await remoteOf({
      address,
      exportName: name,
      tls: tls("controller-a", "controller-b"),
    });
    await writeAll(device, randomBytes(sizeBytes));
  });

  test.each([
    ["somebody else of the same authority", "other", "controller-b"],
    ["somebody whom it does not know", "self", "controller-b"],
    ["a server that is not the one that was meant", "controller-a", "controller-c"],
  ])("keep out %s", async (_, who, wanted) => {
    const { address, access } = await offer(await image("replica"), served());
    const device = new RemoteDevice({
      address,
      exportName: name,
      timing: patient,
      tls: tls(who, wanted),
    });
    endings.push(() => device.close());
    await until("an attempt failed", () => device.status.reason !== "");
    expect(device.status.session).toBe(0);
    expect(access.status.sessions).toBe(0);
  });
});
