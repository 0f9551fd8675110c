/** `dyad witness` as an operator runs it: processes of its own, the built-in witness and an etcd with TLS, users and passwords. */
import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { etcdWitness } from "../../hal/witness/etcd.ts";
import { freePort } from "../support/free-port.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { builtInLab, type WitnessLab } from "./witness-lab.ts";

const cli = join(import.meta.dirname, "../../firmware-ts/cli/main.ts");

/** Never throws: how it ended, and what it said. */
function dyad(...words: string[]): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [cli, "witness", ...words], (error, out, err) => {
      resolve({ code: typeof error?.code === "number" ? error.code : error ? -1 : 0, out, err });
    });
  });
}

describe("the built-in witness", () => {
  let lab: WitnessLab;
  let at: string[];
  beforeEach(async () => {
    lab = await builtInLab();
    const key = join(lab.directory, "keys", "alpha.key");
    at = ["--pair", "alpha", "--at", `127.0.0.1:${lab.port}`, "--key-file", key];
  });
  afterEach(() => lab.remove());
  const serve = () => dyad("serve", "--state", lab.directory, "--listen", `127.0.0.1:${lab.port}`);

  test("is shown, registers a volume by an administrator's word, and says what was done", async () => {
    await lab.start();
    const { witness } = JSON.parse(readFileSync(join(lab.directory, "state"), "utf8").slice(65));
    expect(await dyad("show", ...at)).toEqual({
      code: 0,
      out: `witness ${witness}\nno volumes of pair alpha\n`,
      err: "",
    });
    const words = ["register", ...at, "--volume", "data-1", "--generation", "g7"];
    const unconfirmed = await dyad(...words, "--reason", "b burnt down");
    expect(unconfirmed).toMatchObject({ code: 2, err: expect.stringContaining("--yes") });
    expect(await dyad(...words, "--reason", "b burnt down", "--yes")).toMatchObject({
      code: 0,
      out: "data-1 is registered at generation g7\n",
    });
    expect(await dyad(...words, "--reason", "again", "--yes")).toMatchObject({
      code: 4,
      err: expect.stringContaining("it is registered already; now: generation g7"),
    });
    expect((await dyad("show", ...at)).out).toBe(
      `witness ${witness}\ndata-1: generation g7; the first controller that asks may continue alone (version 1); registered by an administrator: b burnt down\n`,
    );
    expect(lab.output()).toContain("alpha impose data-1 by administrator from g7: done\n");
  });

  test("ends in good order when it is told to, and is there again", async () => {
    await lab.start();
    const child = lab.process();
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    expect(await ended).toEqual([0, null]);
    await lab.start();
    expect((await dyad("show", ...at)).code).toBe(0);
  });

  test("does not run twice on one state", async () => {
    await lab.start();
    expect(await serve()).toMatchObject({
      code: 1,
      err: expect.stringContaining("another witness is running on this state"),
    });
    expect((await dyad("show", ...at)).code).toBe(0);
  });

  test("does not start with a state that it cannot read, and init does not replace that", async () => {
    const path = join(lab.directory, "state");
    const whole = readFileSync(path);
    writeFileSync(path, whole.subarray(0, -10));
    const refused = { code: 1, err: expect.stringContaining("it is cut off") };
    expect(await serve()).toMatchObject(refused);
    expect(await dyad("init", "--pair", "alpha", "--state", lab.directory)).toMatchObject(refused);
    rmSync(path);
    expect(await serve()).toMatchObject({
      code: 1,
      err: expect.stringContaining("dyad witness init"),
    });
  });

  test("does not start with a key that others can read, or without any", async () => {
    const keys = join(lab.directory, "keys");
    chmodSync(join(keys, "alpha.key"), 0o644);
    expect(await serve()).toMatchObject({ code: 1, err: expect.stringContaining("chmod 600") });
    rmSync(keys, { recursive: true });
    expect(await serve()).toMatchObject({ code: 1, err: expect.stringContaining("init --pair") });
  });

  test("init keeps what there is: the identity, and the keys", async () => {
    const key = readFileSync(join(lab.directory, "keys", "alpha.key"), "utf8");
    const words = ["init", "--pair", "alpha", "--state", lab.directory];
    expect(await dyad(...words)).toMatchObject({
      code: 0,
      out: expect.stringContaining("it was there already"),
    });
    expect(readFileSync(join(lab.directory, "keys", "alpha.key"), "utf8")).toBe(key);
  });

  test("what is not there is told", async () => {
    expect(await dyad("show", ...at)).toMatchObject({
      code: 1,
      err: expect.stringContaining("no answer"),
    });
  });
});

test.each([
  [["show", "--pair", "alpha"]],
  [["show", "--pair", "Alpha", "--etcd", "http://127.0.0.1:1"]],
  [["show", "--pair", "alpha", "--at", "127.0.0.1", "--key-file", "/dev/null"]],
  [["show", "--pair", "alpha", "--etcd", "ftp://127.0.0.1"]],
  [["show", "--pair", "alpha", "--etcd", "http://127.0.0.1:1", "--at", "127.0.0.1:1"]],
  [["show", "--pair", "alpha", "--etcd", "http://127.0.0.1:1", "--etcd-user", "u"]],
  [["show", "--pair", "alpha", "--etcd", "http://127.0.0.1:1", "--etcd-cert", "c"]],
  [["serve", "--listen", "7320"]],
  [["serve", "--listen", "127.0.0.1:99999"]],
  [["init"]],
])("is no command: %j", async (words) => {
  expect((await dyad(...words)).code).toBe(2);
});

describe("etcd with TLS, a user and a password", () => {
  const directory = mkdtempSync(join(tmpdir(), "dyad-etcd-tls-"));
  const file = (name: string) => join(directory, name);
  let url: string;
  let child: ReturnType<typeof spawn>;

  beforeAll(async () => {
    const [port, peerPort] = [await freePort(), await freePort()];
    url = `https://127.0.0.1:${port}`;
    certificates(file);
    writeFileSync(file("password"), "correct horse\n");
    writeFileSync(file("wrong"), "wrong\n");
    const peer = `http://127.0.0.1:${peerPort}`;
    child = spawn(
      "etcd",
      [
        ...["--data-dir", file("data"), "--listen-client-urls", url],
        ...["--advertise-client-urls", url, "--listen-peer-urls", peer],
        ...["--initial-advertise-peer-urls", peer, "--initial-cluster", `default=${peer}`],
        ...["--cert-file", file("server.pem"), "--key-file", file("server.key")],
      ],
      { stdio: "ignore" },
    );
    await until(
      "etcd answers",
      async () => (await post("/v3/maintenance/status", {})) !== undefined,
    );
    const role = { name: "alpha-role" };
    const [key, end] = ["dyad-witness/alpha/", "dyad-witness/alpha0"].map((text) =>
      Buffer.from(text).toString("base64"),
    );
    for (const [path, body] of [
      ["/v3/auth/user/add", { name: "root", password: "root" }],
      ["/v3/auth/role/add", { name: "root" }],
      ["/v3/auth/user/grant", { user: "root", role: "root" }],
      ["/v3/auth/user/add", { name: "alpha", password: "correct horse" }],
      ["/v3/auth/role/add", role],
      ["/v3/auth/role/grant", { ...role, perm: { permType: "READWRITE", key, range_end: end } }],
      ["/v3/auth/user/grant", { user: "alpha", role: role.name }],
      ["/v3/auth/enable", {}],
    ] as const)
      expect(await post(path, body), path).toHaveProperty("header");
  });
  afterAll(async () => {
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
    rmSync(directory, { recursive: true });
  });

  /** As an administrator of etcd would; undefined: no answer. */
  function post(path: string, body: unknown): Promise<object | undefined> {
    return new Promise((resolve) => {
      const words = ["-e", postScript, `${url}${path}`, file("ca.pem"), JSON.stringify(body)];
      execFile(process.execPath, words, (error, out) => {
        resolve(error ? undefined : JSON.parse(out));
      });
    });
  }

  const access = (password: string, pair = "alpha") => [
    ...["--pair", pair, "--etcd", url, "--etcd-ca", file("ca.pem")],
    ...["--etcd-user", "alpha", "--etcd-password-file", file(password)],
  ];

  test("is prepared once, and used by whom it knows", async () => {
    const first = await dyad("init", ...access("password"));
    expect(first).toMatchObject({ code: 0, out: expect.stringMatching(/^witness [0-9a-f]{32} /) });
    expect(await dyad("init", ...access("password"))).toEqual(first);
    const words = ["--volume", "v", "--generation", "g1", "--reason", "r", "--yes"];
    expect(await dyad("register", ...access("password"), ...words)).toMatchObject({ code: 0 });
    expect((await dyad("show", ...access("password"))).out).toContain("v: generation g1");
  });

  test("refuses a wrong password, another pair's keys, nobody in particular, and who does not trust it", async () => {
    for (const words of [
      access("wrong"),
      access("password", "beta"),
      ["--pair", "alpha", "--etcd", url, "--etcd-ca", file("ca.pem")],
    ])
      expect(await dyad("show", ...words), words.join(" ")).toMatchObject({
        code: 1,
        err: expect.stringContaining("[refused]"),
      });
    const untrusted = await dyad("show", "--pair", "alpha", "--etcd", url);
    expect(untrusted).toMatchObject({ code: 1, err: expect.stringContaining("[ioError]") });
  });

  test("a login that has ended is made again", async () => {
    await dyad("init", ...access("password"));
    const client = etcdWitness({
      pair: "alpha",
      endpoints: [new URL(url)],
      tls: { ca: readFileSync(file("ca.pem"), "utf8") },
      user: { name: "alpha", password: "correct horse" },
    });
    expect((await client.list(limitsMs.condition)).ok).toBe(true);
    // A change of any user's rights ends every token (etcd: the revision of the authentication store).
    const change = { name: "alpha", password: "correct horse" };
    await asRoot(url, file("ca.pem"), "/v3/auth/user/changepw", change);
    expect((await client.list(limitsMs.condition)).ok).toBe(true);
  });
});

/** Posts JSON over TLS: address, file of the authority, body, and an optional token. */
const postScript = `
const [url, ca, body, token] = process.argv.slice(1);
const options = { method: "POST", ca: require("node:fs").readFileSync(ca), headers: token ? { authorization: token } : {} };
require("node:https").request(url, options, (response) => response.pipe(process.stdout)).on("error", () => process.exit(1)).end(body);
`;

async function asRoot(url: string, ca: string, path: string, body: unknown): Promise<void> {
  const ask = (to: string, what: unknown, ...more: string[]) =>
    execFileSync(
      process.execPath,
      ["-e", postScript, `${url}${to}`, ca, JSON.stringify(what), ...more],
      {
        encoding: "utf8",
      },
    );
  const { token } = JSON.parse(ask("/v3/auth/authenticate", { name: "root", password: "root" }));
  expect(JSON.parse(ask(path, body, token))).toHaveProperty("header");
}

/** An authority of its own, and a certificate of 127.0.0.1. */
function certificates(file: (name: string) => string): void {
  const openssl = (...words: string[]) => execFileSync("openssl", words, { stdio: "ignore" });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const authority = ["-subj", "/CN=test CA", "-keyout", file("ca.key"), "-out", file("ca.pem")];
  openssl("req", "-x509", ...key, "-days", "2", ...authority);
  const names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"];
  openssl("req", ...key, ...names, "-keyout", file("server.key"), "-out", file("server.csr"));
  const signer = ["-CA", file("ca.pem"), "-CAkey", file("ca.key"), "-CAcreateserial"];
  const request = ["-in", file("server.csr"), "-copy_extensions", "copy", "-days", "2"];
  openssl("x509", "-req", ...request, ...signer, "-out", file("server.pem"));
}
