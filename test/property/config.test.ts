/** Whatever a file holds, reading it never throws, and a problem's line is the line where the key really stands. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { stringify } from "smol-toml";
import { expect, test } from "vitest";
import { parseConfigBytes, parseConfigText } from "../../firmware-ts/schema/config-text.ts";
import { keyLines } from "../../firmware-ts/schema/toml-lines.ts";

const example = readFileSync(join(import.meta.dirname, "../../docs/dyad.toml.example"), "utf8");

test("any bytes give a configuration or problems, never an exception", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
      expect(parseConfigBytes(bytes, "f").ok).toBe(false);
    }),
    { numRuns: 500 },
  );
});

test("a valid file damaged anywhere gives a configuration or problems with a line of the file", () => {
  const damage = fc.record({
    at: fc.nat(example.length),
    remove: fc.nat(40),
    insert: fc.string({ maxLength: 12, unit: fc.constantFrom(..."=[]{}\"'#.,\n _a1\\-") }),
  });
  const lines = example.split("\n").length + 12;
  fc.assert(
    fc.property(damage, ({ at, remove, insert }) => {
      const text = example.slice(0, at) + insert + example.slice(at + remove);
      const outcome = parseConfigText(text, "f");
      if (outcome.ok) return;
      expect(outcome.problems.length).toBeGreaterThan(0);
      for (const problem of outcome.problems) {
        expect(problem.line).toBeGreaterThanOrEqual(1);
        expect(problem.line).toBeLessThanOrEqual(lines);
        expect(problem.message).not.toBe("");
      }
    }),
    { numRuns: 1000 },
  );
});

/** Documents of every TOML form that carries keys; each scalar is unique, so that its line can be found by search. */
const keys = fc.uniqueArray(fc.stringMatching(/^[a-z_]{1,6}$/), { minLength: 1, maxLength: 4 });
const scalar = fc.constantFrom("", "# no comment", 'quote " inside', "]", "}", "a\nb", "\\", "'''");
const leaf = fc.oneof(scalar, fc.array(scalar, { maxLength: 3 }), fc.boolean(), fc.integer());
const { table } = fc.letrec((tie) => ({
  table: fc
    .tuple(keys, fc.array(tie("value"), { minLength: 4, maxLength: 4 }))
    .map(([names, values]) => Object.fromEntries(names.map((name, i) => [name, values[i]]))),
  value: fc.oneof(
    { maxDepth: 3 },
    leaf,
    tie("table"),
    fc.array(tie("table"), { minLength: 1, maxLength: 3 }),
  ),
}));

/** Replaces every leaf by a unique mark and lists the paths of the marks. */
function mark(value: unknown, path: (string | number)[], marks: (string | number)[][]): unknown {
  if (Array.isArray(value) && value.every((each) => typeof each === "object"))
    return value.map((each, i) => mark(each, [...path, i], marks));
  if (typeof value === "object" && value !== null && !Array.isArray(value))
    return Object.fromEntries(
      Object.entries(value).map(([key, inner]) => [key, mark(inner, [...path, key], marks)]),
    );
  marks.push(path);
  const name = `mark${marks.length - 1}.`;
  return Array.isArray(value) ? [name, ...value] : `${name}${String(value)}`;
}

test("the scanner finds the line of every key of every document", () => {
  fc.assert(
    fc.property(table, (document) => {
      const marks: (string | number)[][] = [];
      const text = stringify(mark(document, [], marks) as Record<string, unknown>);
      const lines = keyLines(text);
      marks.forEach((path, i) => {
        const line = text.slice(0, text.indexOf(`mark${i}.`)).split("\n").length;
        expect(lines.exact(path), `${JSON.stringify(path)} in\n${text}`).toBe(line);
      });
    }),
    { numRuns: 400 },
  );
});

test("the scanner keeps count through comments, quoted and dotted keys, inline tables and multi-line strings", () => {
  const text = [
    "# a = 1 [x]",
    '"quoted.key" = 1',
    "a.b . 'c d' = 2",
    'text = """',
    'looks = "like a key"',
    '[not.a.table] """""',
    "raw = '''",
    "''still'''",
    "list = [ # comment ]",
    "  1,",
    "  { deep = { er = 3 } },",
    "  [[4, 5],",
    "   [6]],",
    "]",
    "[[t]]",
    "x = 1",
    "[[t]]",
    "[t.u]",
    "y = 2",
    "[[t.v]]",
    "z = 3",
  ].join("\r\n");
  const lines = keyLines(text);
  const expected: [(string | number)[], number][] = [
    [["quoted.key"], 2],
    [["a"], 3],
    [["a", "b", "c d"], 3],
    [["text"], 4],
    [["raw"], 7],
    [["list"], 9],
    [["list", 0], 10],
    [["list", 1, "deep", "er"], 11],
    [["list", 2, 1, 0], 13],
    [["t", 0, "x"], 16],
    [["t", 1], 17],
    [["t", 1, "u", "y"], 19],
    [["t", 1, "v", 0, "z"], 21],
  ];
  for (const [path, line] of expected) expect(lines.exact(path), JSON.stringify(path)).toBe(line);
  expect(lines.exact(["looks"])).toBeUndefined();
  expect(lines.exact(["not"])).toBeUndefined();
});
