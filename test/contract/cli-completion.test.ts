/** Completion in a real bash: after each beginning of a command line, what the Tab key would offer. */
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { runCli } from "../../firmware-ts/cli/program.ts";

const directory = mkdtempSync(join(tmpdir(), "dyad-completion-"));
afterAll(() => rmSync(directory, { recursive: true }));

async function dyad(...args: string[]): Promise<{ code: number; out: string }> {
  let out = "";
  const io = {
    out: (text: string) => {
      out += text;
    },
    err: () => undefined,
    interactive: false,
    colour: false,
    ask: async () => "",
  };
  const code = await runCli(args, { io, defaultSocket: "/nowhere", version: "1.2.3" });
  return { code, out };
}

beforeAll(async () => {
  const { code, out } = await dyad("completion", "bash");
  expect(code).toBe(0);
  writeFileSync(join(directory, "script"), out);
  mkdirSync(join(directory, "bin"));
  const fake = join(directory, "bin", "dyad");
  const list = '{"name":"alpha","home":"a"}\n{"name":"beta","home":"b"}';
  writeFileSync(fake, `#!/bin/sh\n[ "$*" = "-o json vserver list" ] && printf '%s\\n' '${list}'\n`);
  chmodSync(fake, 0o755);
  mkdirSync(join(directory, "etc"));
  for (const name of ["dyad.toml", "with blank.toml"])
    writeFileSync(join(directory, "etc", name), "");
});

/** What is offered for the last word. */
function offered(...words: string[]): string[] {
  const script = 'source ../script; COMP_WORDS=(dyad "$@"); COMP_CWORD=$#; _dyad';
  const out = execFileSync(
    "bash",
    ["--norc", "-uc", `${script}; printf '%s\\n' "\${COMPREPLY[@]}"`, "bash", ...words],
    {
      cwd: join(directory, "etc"),
      env: { PATH: `${join(directory, "bin")}:${process.env.PATH}` },
      encoding: "utf8",
    },
  );
  return out.split("\n").filter((line) => line !== "");
}

test.each([
  [["sta"], ["status"]],
  [["vserver", "t"], ["transfer"]],
  [
    ["-o", ""],
    ["table", "json"],
  ],
  [["-o", "json", "dis"], ["disk"]],
  [["takeover", "--d"], ["--dry-run"]],
  [["takeover", "--reason", ""], []],
  [["takeover", "--wait", "30", "--f"], ["--force"]],
  [
    ["panel", "press", ""],
    ["up", "down", "ok", "back"],
  ],
  [["panel", "press", "d"], ["down"]],
  [["completion", ""], ["bash"]],
  [["status", "--o"], ["--output"]],
  [["--vers"], ["--version"]],
  [["status", "--vers"], []],
])("%j: %j", (words, expected) => {
  expect(offered(...words)).toEqual(expected);
});

test("commands come before options, and the help is among them", () => {
  const words = offered("vserver", "");
  const help = words.indexOf("help");
  expect(words.slice(0, 5)).toEqual(["list", "show", "transfer", "create", "modify"]);
  expect(words.slice(0, help + 1).some((word) => word.startsWith("-"))).toBe(false);
  expect(words.slice(help + 1)).toContain("--help");
});

test("names of virtual servers come from the daemon, one for each argument", () => {
  expect(offered("vserver", "show", "")).toEqual(["alpha", "beta"]);
  expect(offered("vserver", "transfer", "--wait", "30", "b")).toEqual(["beta"]);
  expect(offered("vserver", "show", "beta", "")).not.toContain("alpha");
  expect(offered("vserver", "address", "add", "b")).toEqual(["beta"]);
  // What is new has no name yet, and an address is nobody's name.
  expect(offered("vserver", "create", "b")).toEqual([]);
  expect(offered("vserver", "address", "add", "beta", "a")).toEqual([]);
});

test("files are offered where a file is wanted, blanks and all", () => {
  expect(offered("config", "check", "d")).toEqual(["dyad.toml"]);
  expect(offered("config", "check", "with")).toEqual(["with blank.toml"]);
  expect(offered("--socket", "dy")).toEqual(["dyad.toml"]);
  expect(offered("vserver", "create", "--file", "dy")).toEqual(["dyad.toml"]);
  expect(offered("vserver", "create", "--export", "dy")).toEqual([]);
});

test("every command and option of every help is offered", async () => {
  const explore = async (path: string[]): Promise<number> => {
    const help = (await dyad(...path, "--help")).out;
    const section = (title: string) =>
      new RegExp(`^${title}:\\n((?: .*\\n)+)`, "m").exec(help)?.[1]?.split("\n") ?? [];
    const commands = section("Commands").flatMap((line) => /^ {2}([a-z]+)/.exec(line)?.[1] ?? []);
    const options = section("Options").flatMap((line) => line.match(/(?<= |^)--[a-z-]+/) ?? []);
    for (const word of [...commands, ...options])
      expect(offered(...path, word), [...path, word].join(" ")).toContain(word);
    const below = commands.filter((name) => name !== "help");
    const counts = await Promise.all(below.map((name) => explore([...path, name])));
    return counts.reduce((sum, count) => sum + count, commands.length + options.length);
  };
  expect(await explore([])).toBeGreaterThan(40);
});

test("the release is told", async () => {
  expect(await dyad("--version")).toEqual({ code: 0, out: "dyad 1.2.3\n" });
});
