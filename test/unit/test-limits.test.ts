/** The tests themselves: none may give up after a time that a slow machine needs (docs/testing.md). */
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";
import { expect, test } from "vitest";
import { limitsMs } from "../support/limits.ts";

const root = join(import.meta.dirname, "../..");
const hooks = ["beforeAll", "afterAll", "beforeEach", "afterEach"];
const waits = ["expect.poll", "execFileSync", "spawnSync"];

/** Every call of a source, by the words that are called. */
function callsIn(name: string, text: string): { called: string; call: ts.CallExpression }[] {
  const found: { called: string; call: ts.CallExpression }[] = [];
  const source = ts.createSourceFile(name, text, ts.ScriptTarget.Latest, true);
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node))
      found.push({ called: node.expression.getText(source), call: node });
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

/** A time limit that is written as a number: the last argument itself, or its `timeout`. Infinite where there is none. */
function limitOf(call: ts.CallExpression): number {
  const last = call.arguments.at(-1);
  const values = last === undefined ? [] : [last];
  if (last !== undefined && ts.isObjectLiteralExpression(last))
    for (const property of last.properties)
      if (ts.isPropertyAssignment(property) && property.name.getText() === "timeout")
        values.push(property.initializer);
  const [limit] = values.filter(ts.isNumericLiteral);
  return limit === undefined ? Number.POSITIVE_INFINITY : Number(limit.text);
}

function complaints(name: string, text: string): string[] {
  const isSystem = /^test\/(contract|bench|e2e)\//.test(name);
  return callsIn(name, text).flatMap(({ called, call }) => {
    if (/^vi\.wait(For|Until)$/.test(called))
      return [`${name}: ${called} gives up after a second; use expect.poll or until`];
    const leastMs = hooks.includes(called)
      ? limitsMs[isSystem ? "system" : "fast"]
      : waits.includes(called)
        ? limitsMs.condition
        : 0;
    const limitMs = limitOf(call);
    if (limitMs >= leastMs) return [];
    return [`${name}: ${called} may take ${limitMs} ms; a slow machine needs ${leastMs}`];
  });
}

test("no hook, wait or program of a test is given up early", () => {
  const names = globSync("test/**/*.ts", { cwd: root });
  expect(names.length).toBeGreaterThan(100);
  const found = names.flatMap((name) => complaints(name, readFileSync(join(root, name), "utf8")));
  expect(found).toEqual([]);
});

test.each([
  ["await vi.waitFor(() => x);", "gives up after a second"],
  ["beforeAll(async () => {}, 10_000);", "may take 10000 ms"],
  ["await expect.poll(() => x, { interval: 1, timeout: 5000 }).toBe(1);", "may take 5000 ms"],
])("%s is found", (text, complaint) => {
  expect(complaints("test/contract/x.test.ts", text).join()).toContain(complaint);
});

test("what is generous is left alone", () => {
  const text = "beforeAll(f, 300_000); expect.poll(f, { timeout: 60_000 }); setTimeout(f, 5);";
  expect(complaints("test/contract/x.test.ts", text)).toEqual([]);
});
