/**
 * Every script of this folder, run against two production controllers in virtual time. If one fails, run with UPDATE=1 and inspect
 * the difference; commit it only if you understand what caused it, and if it is desired.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { runScript } from "../../hal/sim/script.ts";

const scripts = readdirSync(import.meta.dirname).filter((name) => name.endsWith(".txt"));

describe("scenarios", () => {
  test("there are scripts", () => expect(scripts.length).toBeGreaterThan(0));

  test.each(scripts)("%s", (name) => {
    const path = join(import.meta.dirname, name);
    const wanted = readFileSync(path, "utf8");
    const { text } = runScript(wanted);
    if (process.env.UPDATE === "1") writeFileSync(path, text);
    else expect(text).toBe(wanted);
  });
});
