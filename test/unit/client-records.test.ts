import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readyClientRecords } from "../../hal/linux/ganesha/client-records.ts";

describe("records of NFSv4 clients before a start", () => {
  let folder: string;
  const path = (...names: string[]) => join(folder, ...names);
  const has = (...names: string[]) => mkdirSync(path(...names), { recursive: true });
  const log: string[] = [];
  const ready = () =>
    readyClientRecords(path(), { hasGraceEnd: true, log: (text) => void log.push(text) });

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "dyad-records-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it("the directory is made, and a directory without records stays as it is", async () => {
    rmSync(folder, { recursive: true });
    expect(await ready()).toMatchObject({ ok: true });
    expect(existsSync(path())).toBe(true);
    has("clients", "one");
    expect(await ready()).toMatchObject({ ok: true });
    expect(readdirSync(path("clients"))).toEqual(["one"]);
  });

  it("those who were waited for are among those who are here, each once", async () => {
    has("clients-before", "waited for");
    has("clients-before", "returned");
    has("clients", "returned");
    has("clients", "new");
    expect(await ready()).toMatchObject({ ok: true });
    expect(readdirSync(path("clients")).sort()).toEqual(["new", "returned", "waited for"]);
    expect(readdirSync(path("clients-before"))).toEqual([]);
  });

  it("many of them, some of whom have returned", async () => {
    const names = Array.from({ length: 40 }, (_, i) => `client-${i}`).sort();
    for (const name of names) has("clients-before", name, "rest of the name");
    for (const name of names.slice(0, 20)) has("clients", name, "rest of the name", "more");
    expect(await ready()).toMatchObject({ ok: true });
    expect(readdirSync(path("clients")).sort()).toEqual(names);
    expect(readdirSync(path("clients", names[0] ?? "", "rest of the name"))).toEqual(["more"]);
    expect(readdirSync(path("clients-before"))).toEqual([]);
  });

  it("long names that begin alike stay apart, and revoked delegations stay with their client", async () => {
    has("clients-before", "long", "one");
    has("clients", "long", "two");
    has("clients-before", "client");
    has("clients", "client");
    writeFileSync(path("clients-before", "client", "\u0001old"), "");
    writeFileSync(path("clients", "client", "\u0001new"), "");
    expect(await ready()).toMatchObject({ ok: true });
    expect(readdirSync(path("clients", "long")).sort()).toEqual(["one", "two"]);
    expect(readdirSync(path("clients", "client")).sort()).toEqual(["\u0001new", "\u0001old"]);
    expect(readdirSync(path("clients-before"))).toEqual([]);
  });

  it("of a server that never had clients, the first who was waited for", async () => {
    has("clients-before", "one");
    expect(await ready()).toMatchObject({ ok: true });
    expect(readdirSync(path("clients"))).toEqual(["one"]);
  });

  it("a directory deeper than any name is an error, and so is one that cannot be read", async () => {
    const deep = Array.from({ length: 20 }, (_, i) => `d${i}`);
    has("clients-before", ...deep);
    has("clients", ...deep);
    expect(await ready()).toMatchObject({ fault: { code: "ioError" } });
    rmSync(path("clients-before"), { recursive: true });
    writeFileSync(path("clients-before"), "");
    expect(await ready()).toMatchObject({ fault: { code: "ioError" } });
  });
});
