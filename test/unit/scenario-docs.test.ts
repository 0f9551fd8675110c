/** Documents and scenarios hold together: what a document names exists, and every scenario can be read without one. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { faults } from "../../bench/faults/index.ts";
import { orderNames } from "../../hal/sim/orders.ts";

const root = join(import.meta.dirname, "../..");
const scenarios = readdirSync(join(root, "test/scenarios")).filter((name) => name.endsWith(".txt"));
const read = (path: string) => readFileSync(join(root, path), "utf8");

const documents = ["README.md", "models/README.md", "CHANGELOG.md"].concat(
  ["docs", "docs/design"].flatMap((folder) =>
    readdirSync(join(root, folder))
      .filter((name) => name.endsWith(".md"))
      .map((name) => `${folder}/${name}`),
  ),
);

/** Texts between backticks, outside of code blocks. */
const inlineCode = (text: string) =>
  [...text.matchAll(/`([^`\n]+)`/g)].map(([, code]) => code ?? "");

/** The rows of a table behind a title, as lists of cells. */
function tableAfter(text: string, title: string): string[][] {
  const lines = text.slice(text.indexOf(title)).split("\n");
  const first = lines.findIndex((line) => line.startsWith("|"));
  const rows = lines.slice(first);
  const end = rows.findIndex((line) => !line.startsWith("|"));
  return rows.slice(2, end < 0 ? undefined : end).map((line) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

const scenarioIn = (cell: string) => inlineCode(cell).some((code) => scenarios.includes(code));

describe("a scenario", () => {
  test.each(documents)("that is named in %s exists", (path) => {
    const names = inlineCode(read(path))
      .filter((code) => /^(test\/scenarios\/)?[a-z0-9-]+\.txt$/.test(code))
      .map((code) => code.replace("test/scenarios/", ""));
    for (const name of names) expect(scenarios, path).toContain(name);
  });

  test.each(scenarios)("begins with its story: %s", (name) => {
    const lines = read(`test/scenarios/${name}`).split("\n");
    const end = lines.findIndex((line) => !line.startsWith("# "));
    const story = lines.slice(0, end).join(" ");
    expect(story.length).toBeGreaterThan(40);
    expect(story).toMatch(/[.)]$/);
  });

  test("tells each fault of the bench", () => {
    for (const { name } of faults) expect(scenarios).toContain(`bench-${name}.txt`);
  });
});

describe("the table", () => {
  test("of what others got wrong names a scenario for each case, or says that there is none", () => {
    const rows = tableAfter(read("docs/SAFETY.md"), "**What others got wrong");
    expect(rows).toHaveLength(11);
    for (const [what, which = ""] of rows)
      expect(scenarioIn(which) || which.startsWith("none: "), what).toBe(true);
  });

  test("of what was found names a scenario and a line of the changelog for each case, or says why not", () => {
    const changelog = read("CHANGELOG.md");
    const rows = tableAfter(read("docs/sim.md"), "## What it has found");
    expect(rows.length).toBeGreaterThanOrEqual(14);
    for (const [, what = "", which = "", line = ""] of rows) {
      expect(scenarioIn(which) || which.startsWith("none: "), what).toBe(true);
      const quoted = /^“(.+)”$/.exec(line)?.[1];
      if (quoted === undefined) expect(what).toMatch(/^nothing in the product/);
      else expect(changelog).toContain(`- ${quoted}`);
    }
  });

  test("of orders names every order of a script", () => {
    const text = read("docs/sim.md");
    const section = text.slice(text.indexOf("## Scenarios"));
    const named = new Set(
      tableAfter(section, "| orders |").flatMap(([cell = ""]) =>
        inlineCode(cell).map((code) => code.split(" ")[0]),
      ),
    );
    for (const name of orderNames) expect(named).toContain(name);
  });

  test("names tests that exist", () => {
    for (const code of ["docs/SAFETY.md", "docs/sim.md"].flatMap((path) => inlineCode(read(path))))
      if (/^test\/.*\.ts$/.test(code)) expect(existsSync(join(root, code)), code).toBe(true);
  });
});

describe("the page of vetoes", () => {
  test("has every reason that there is, and no other, with its severity", () => {
    const files = ["vetoes", "change-vetoes", "change"];
    const text = files.map((file) => read(`firmware-ts/core/${file}.ts`)).join("\n");
    const made = [...text.matchAll(/\b(hard|soft)\(\s*"(\w+)"/g)];
    const reasons = new Set(made.map(([, severity, code]) => `${code} (${severity})`));
    const titles = [...read("docs/vetoes.md").matchAll(/^## (.*)$/gm)].map(([, title]) => title);
    expect(reasons.size).toBeGreaterThan(5);
    expect(titles.toSorted()).toEqual([...reasons].toSorted());
  });
});
