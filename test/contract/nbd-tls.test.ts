/** TLS between two controllers, before ends that would like to be one of them; certificates are OpenSSL's. */
import { readFile, rm, writeFile } from "node:fs/promises";
import { connect, createServer as createPlain, type Server, type Socket } from "node:net";
import { join } from "node:path";
import {
  createServer as createTls,
  getCACertificates,
  setDefaultCACertificates,
  type TlsOptions,
} from "node:tls";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import { NbdTls, type NbdTlsOptions } from "../../hal/block/nbd-tls.ts";
import { askingTls, pairKey, servingTls } from "../support/pair-tls.ts";
import { must, newFolder } from "./block-lab.ts";

let folder: string;
const text = (file: string) => readFile(join(folder, file), "utf8");
const servers: Server[] = [];
const sockets: Socket[] = [];

/** A certificate of the authority `ca` for a common name, and for what else is said of it. */
async function certify(name: string, more: string): Promise<void> {
  const at = (file: string) => join(folder, file);
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  const made = ["-subj", `/CN=${name}`, "-keyout", at(`${name}.key`)];
  if (name === "ca") {
    await must("openssl", "req", "-x509", ...curve, "-days", "2", ...made, "-out", at("ca.pem"));
    return;
  }
  await must("openssl", "req", ...curve, ...made, "-out", at(`${name}.csr`));
  await writeFile(at(`${name}.ext`), more);
  const signed = ["-CA", at("ca.pem"), "-CAkey", at("ca.key"), "-CAcreateserial", "-days", "2"];
  const files = ["-in", at(`${name}.csr`), "-out", at(`${name}.pem`)];
  await must("openssl", "x509", "-req", ...files, ...signed, "-extfile", at(`${name}.ext`));
}

beforeAll(async () => {
  folder = await newFolder();
  await certify("ca", "");
  await certify("controller-a", "subjectAltName=DNS:controller-a\n");
  await certify("controller-b", "subjectAltName=DNS:controller-b\n");
  await certify("unnamed", "basicConstraints=CA:FALSE\n");
});
afterEach(() => {
  for (const one of sockets.splice(0)) one.destroy();
  for (const one of servers.splice(0)) one.close();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Both ends of a connection, in which neither has spoken. */
async function connection(): Promise<{ asking: Socket; served: Socket }> {
  const server = createPlain();
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  const asking = connect(address.port, "127.0.0.1");
  const served = await accepted;
  for (const one of [asking, served]) one.on("error", () => {});
  sockets.push(asking, served);
  return { asking, served };
}

async function between(client: NbdTls, server: NbdTls): Promise<Outcome<unknown>[]> {
  const { asking, served } = await connection();
  return Promise.all([client.begin(asking), server.accept(served)]);
}

/** What a client finds at a server that is not ours. */
async function atServer(client: NbdTls, options: TlsOptions): Promise<Outcome<unknown>> {
  const { asking, served } = await connection();
  const server = createTls(options, (socket) => socket.on("error", () => {}));
  server.on("tlsClientError", () => {});
  server.emit("connection", served);
  return client.begin(asking);
}

async function certified(name: string, peerName: string): Promise<NbdTls> {
  const [authority, certificate] = [await text("ca.pem"), await text(`${name}.pem`)];
  const key = await text(`${name}.key`);
  const made = NbdTls.create({ kind: "certificate", authority, certificate, key, peerName });
  if (!made.ok) throw new Error(made.fault.message);
  return made.value;
}

describe("a key", () => {
  test("lets the two talk to each other, and neither to itself", async () => {
    for (const one of await between(askingTls, servingTls)) expect(one.ok).toBe(true);
    for (const one of await between(servingTls, askingTls)) expect(one.ok).toBe(true);
    for (const itself of [askingTls, servingTls]) {
      const { asking, served } = await connection();
      const client = itself.begin(asking);
      expect(await itself.accept(served)).toMatchObject({ fault: { code: "refused" } });
      served.destroy();
      expect(await client).toMatchObject({ fault: { code: "refused" } });
    }
  });

  test("is asked of a server that shows a certificate instead, of an authority that this machine trusts", async () => {
    const trusted = getCACertificates("default");
    setDefaultCACertificates([...trusted, await text("ca.pem")]);
    try {
      const shown = { cert: await text("controller-b.pem"), key: await text("controller-b.key") };
      expect(await atServer(askingTls, shown)).toMatchObject({ fault: { code: "refused" } });
      const passedOver = { ...shown, pskIdentityHint: "", pskCallback: () => null };
      expect(await atServer(askingTls, passedOver)).toMatchObject({ fault: { code: "refused" } });
    } finally {
      setDefaultCACertificates(trusted);
    }
  });

  test("has 32 bytes, and belongs to two", () => {
    const right: NbdTlsOptions = { kind: "key", identity: "a", peerIdentity: "b", key: pairKey };
    expect(NbdTls.create(right).ok).toBe(true);
    for (const wrong of [
      { key: Buffer.alloc(31, 1) },
      { key: Buffer.alloc(33, 1) },
      { identity: "b" },
      { identity: "" },
      { peerIdentity: "" },
    ])
      expect(NbdTls.create({ ...right, ...wrong })).toMatchObject({ fault: { code: "badInput" } });
  });
});

describe("certificates", () => {
  test("name the partner where names are looked for: a common name alone is none", async () => {
    const a = await certified("controller-a", "controller-b");
    for (const one of await between(a, await certified("controller-b", "controller-a")))
      expect(one.ok).toBe(true);
    const meant = await certified("controller-a", "unnamed");
    const [found] = await between(meant, await certified("unnamed", "controller-a"));
    expect(found).toMatchObject({
      fault: { message: expect.stringMatching(/does not name unnamed/) },
    });
  });

  test("that cannot be used are refused before there is a connection", async () => {
    const right: NbdTlsOptions = {
      kind: "certificate",
      peerName: "controller-b",
      authority: await text("ca.pem"),
      certificate: await text("controller-a.pem"),
      key: await text("controller-a.key"),
    };
    expect(NbdTls.create(right).ok).toBe(true);
    for (const wrong of [
      { authority: "no certificate" },
      { certificate: "no certificate" },
      { key: "no key" },
      { key: await text("controller-b.key") },
    ])
      expect(NbdTls.create({ ...right, ...wrong })).toMatchObject({ fault: { code: "badInput" } });
  });
});
