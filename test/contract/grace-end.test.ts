/** The library that has ganesha's reaper look, loaded into a program that does nothing but make directories and tell of each look. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { graceEnd } from "../../hal/linux/native-build.ts";
import { until } from "../support/until.ts";

const second = 1000;

describe("the end of grace", () => {
  let folder: string;
  let program: string;
  let records: string;
  let child: ChildProcess | undefined;
  let looks = 0;
  let startedAt = 0;
  let count = 0;

  const record = (kind: "clients" | "clients-before", ...names: string[]) => {
    for (const name of ["", ...names]) mkdirSync(join(records, kind, name), { recursive: true });
  };
  /** The server makes it, as ganesha does for a client that has come. */
  const comes = (name: string) => child?.stdin?.write(`${records}/clients/${name}\n`);
  /** Those of its own tick, one each second, and no more. */
  const ticks = () => 1 + (performance.now() - startedAt) / second;
  const begin = async () => {
    const library = await graceEnd();
    if (!library.ok) throw new Error(library.fault.message);
    const env = { LD_PRELOAD: library.value, DYAD_CLIENT_RECORDS: records };
    startedAt = performance.now();
    child = spawn(program, { stdio: ["pipe", "pipe", "inherit"], env });
    if (child.stdout === null) throw new Error("no output");
    createInterface({ input: child.stdout }).on("line", () => {
      looks += 1;
    });
    // By this ganesha lets it begin.
    child.stdin?.write(`${records}\n`);
  };

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "dyad-grace-end-"));
    program = join(folder, "server");
    const source = join(import.meta.dirname, "grace-end-server.c");
    await promisify(execFile)("cc", [
      "-O2",
      "-Wall",
      "-Werror",
      "-rdynamic",
      "-o",
      program,
      source,
    ]);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  beforeEach(() => {
    looks = 0;
    count += 1;
    records = join(folder, `records-${count}`);
    record("clients");
    record("clients-before");
  });
  /** It ends with its input; what it has said by then has been heard. */
  const end = async () => {
    const closing = child;
    child = undefined;
    if (closing === undefined) return;
    const closed = new Promise((resolve) => closing.once("close", resolve));
    closing.stdin?.end();
    await closed;
  };
  afterEach(end);

  it("the reaper looks once a second, so that records of the dead do not wait for its own tick", async () => {
    await begin();
    await until("two looks", () => looks >= 2);
    expect(looks).toBeLessThanOrEqual(ticks());
  });

  it("it looks at once when the last of those who are waited for is back, and again until they are let go", async () => {
    record("clients-before", "one", "two");
    await begin();
    comes("one");
    comes("a stranger");
    await until("a tick", () => looks >= 1);
    expect(looks, "one is still away").toBeLessThanOrEqual(ticks());
    comes("two");
    // More than a look each second can only be because they are back.
    await until("looks", () => looks > 10 + ticks());
    rmSync(join(records, "clients-before"), { recursive: true });
    record("clients-before");
    await until("quiet", async () => {
      const before = looks;
      await new Promise((resolve) => setTimeout(resolve, second / 4));
      return looks - before <= 1;
    });
  });

  it("who was here and is gone again is waited for", async () => {
    record("clients-before", "one", "two");
    await begin();
    comes("one");
    await until("it is made", () => existsSync(join(records, "clients/one")));
    rmSync(join(records, "clients/one"), { recursive: true });
    comes("two");
    const seen = looks;
    await until("a tick", () => looks > seen);
    expect(looks).toBeLessThanOrEqual(ticks());
  });

  it("a name of several directories counts once, and a file in a record not at all", async () => {
    const [first, last] = ["f".repeat(255), "l".repeat(20)];
    record("clients-before", `${first}/${last}`, "plain");
    writeFileSync(join(records, "clients-before/plain/\u0001revoked"), "");
    await begin();
    comes("plain");
    comes(first);
    await until("a tick", () => looks >= 1);
    expect(looks, "half a name is nobody").toBeLessThanOrEqual(ticks());
    comes(`${first}/${last}`);
    await until("looks", () => looks > 10 + ticks());
  });

  it("without records to look at nothing is told", async () => {
    records = "";
    await begin();
    const other = join(folder, "elsewhere");
    child?.stdin?.write(`${other}\n${other}/clients\n`);
    await end();
    expect(looks).toBe(0);
  });
});
