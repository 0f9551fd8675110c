/** `dyad` as a process of its own: the keyboard, the environment, the exit code, and what it loads. */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type FakeDaemon, troubledStatus } from "../support/fake-daemon.ts";
import { jsonLines } from "../support/json-lines.ts";
import { listeningDaemons } from "../support/listening-daemon.ts";

const { directory, listen } = listeningDaemons("cli-process");
const root = join(import.meta.dirname, "../..");
const main = join(root, "firmware-ts/cli/main.ts");
/** Without the socket of the developer's own daemon. */
const { DYAD_SOCKET: _, ...own } = process.env;
const environment = { ...own, NO_COLOR: "1" };

let fake: FakeDaemon;
let socket: string;
beforeEach(async () => {
  ({ fake, socket } = await listen());
});
afterEach(() => fake.api.close());

test("the live panel on a terminal follows the keyboard and gives the terminal back", async () => {
  const command = `"${process.execPath}" "${main}" --socket "${socket}" panel; stty -a`;
  const child = spawn("script", ["-q", "-c", command, "/dev/null"], { env: environment });
  let out = "";
  child.stdout.on("data", (chunk) => {
    out += chunk;
  });
  await expect.poll(() => out).toContain("A PAIRED          OK");
  child.stdin.write("\x1b[B");
  await expect.poll(() => fake.pressed).toEqual(["down"]);
  child.stdin.write("\r");
  await expect.poll(() => fake.pressed).toEqual(["down", "ok"]);
  fake.view = { ...fake.view, lines: ["now another line    ", fake.view.lines[1]] };
  await expect.poll(() => out).toContain("now another line");
  const ended = once(child, "exit");
  child.stdin.write("q");
  await ended;
  expect(out).toMatch(/[^-]icanon/);
  expect(fake.pressed).toEqual(["down", "ok"]);
});

const run = promisify(execFile);

/** Runs Node and returns what it printed, the processor time it took, ms, and the packages that it read. */
async function measured(args: string[], env: NodeJS.ProcessEnv) {
  const script = `
    import { registerHooks } from "node:module";
    const packages = new Set();
    registerHooks({
      resolve(name, context, next) {
        const resolved = next(name, context);
        const [, found] = /.*node_modules\\/((?:@[^/]+\\/)?[^/]+)/.exec(resolved.url) ?? [];
        if (found) packages.add(found);
        return resolved;
      },
    });
    process.on("exit", () => {
      const { user, system } = process.cpuUsage();
      const cpuMs = (user + system) / 1000;
      process.stderr.write(JSON.stringify({ cpuMs, packages: [...packages] }));
    });`;
  const hook = `data:text/javascript,${encodeURIComponent(script)}`;
  const { stdout, stderr } = await run(process.execPath, ["--import", hook, ...args], { env });
  const told: { cpuMs: number; packages: string[] } = JSON.parse(stderr);
  return { stdout, ...told };
}

test("DYAD_SOCKET, exit code, and no more packages than a command needs", async () => {
  const env = { ...environment, DYAD_SOCKET: socket };
  const bare = await measured(["-e", "0"], env);
  const { stdout, cpuMs, packages } = await measured([main, "status"], env);
  expect(stdout).toContain("health: OK");
  console.log(`processor time: ${cpuMs} ms, Node alone ${bare.cpuMs} ms`);
  // What makes a command quick to start is what it does not load: nothing of the daemon, no driver.
  const { dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  expect(packages.filter((name) => name in dependencies).toSorted()).toEqual([
    "@commander-js/extra-typings",
    "cli-table3",
    "commander",
    "picocolors",
    "zod",
  ]);
  fake.status = troubledStatus();
  await expect(run(process.execPath, [main, "status"], { env })).rejects.toMatchObject({ code: 3 });
});

test("events --follow shows what comes, and ends with the daemon", async () => {
  fake.emit({ code: "before" });
  const child = spawn(process.execPath, [main, "--socket", socket, "-o", "json", "events", "-f"]);
  let out = "";
  child.stdout.on("data", (chunk) => {
    out += chunk;
  });
  const codes = () => (out === "" ? [] : jsonLines(out).map((event) => event.code));
  await expect.poll(codes).toEqual(["before"]);
  await expect.poll(() => fake.listeners()).toBe(1);
  fake.emit({ code: "after" });
  await expect.poll(codes).toEqual(["before", "after"]);
  const ended = once(child, "exit");
  await fake.api.close();
  expect(await ended).toEqual([5, null]);
});

test("a reader that has seen enough is no failure", async () => {
  for (let i = 0; i < 900; i += 1) fake.emit({ message: "x".repeat(500) });
  const command = `"${process.execPath}" "${main}" --socket "${socket}" events --limit 1000 | head -n 1; echo "\${PIPESTATUS[0]}"`;
  const { stdout } = await run("bash", ["-c", command], { env: environment });
  expect(stdout.trimEnd().split("\n").at(-1)).toBe("0");
});

test.runIf(process.getuid?.() === 0)("somebody who is not root is told so", async () => {
  chmodSync(directory, 0o755);
  const script = `
    process.setgid(65534); process.setuid(65534);
    const { runCli } = await import(${JSON.stringify(join(root, "firmware-ts/cli/program.ts"))});
    const io = { out: () => {}, err: (text) => process.stderr.write(text), interactive: false, colour: false, ask: async () => "" };
    process.exitCode = await runCli(["status"], { io, defaultSocket: ${JSON.stringify(socket)} });
  `;
  const failed = run(process.execPath, ["--input-type=module", "-e", script], { cwd: root });
  await expect(failed).rejects.toMatchObject({
    code: 77,
    stderr: expect.stringContaining("permission denied"),
  });
});
