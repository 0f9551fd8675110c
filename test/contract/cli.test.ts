/**
 * `dyad` against a real API with a daemon that only remembers: what is printed (golden files; rewrite with `vitest -u` and read
 * the difference), what is asked, and how it ends.
 */
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { coloursFor, eventText, statusText } from "../../firmware-ts/cli/text.ts";
import type { Status, Veto } from "../../firmware-ts/schema/status.ts";
import { runDyad, type Terminal } from "../support/cli-run.ts";
import { type FakeDaemon, healthyStatus, troubledStatus } from "../support/fake-daemon.ts";
import { jsonLines } from "../support/json-lines.ts";
import { listeningDaemons } from "../support/listening-daemon.ts";

const { directory, listen } = listeningDaemons("cli");
const example = join(import.meta.dirname, "../../docs/dyad.toml.example");

let fake: FakeDaemon;
let socket: string;
beforeEach(async () => {
  ({ fake, socket } = await listen());
});
afterEach(() => fake.api.close());

const dyad = (command: string, terminal: Terminal = {}) => runDyad(socket, command, terminal);
const golden = (name: string) => `../golden/cli/${name}.txt`;

const hard: Veto = {
  code: "configurationDiffers",
  severity: "hard",
  message: "the two configurations differ",
};
const soft: Veto = { code: "linkRed", severity: "soft", message: "the serial link is red" };
const passing: Veto = { code: "serverBusy", severity: "hard", message: "beta is starting here" };

test.each([
  ["status", "status"],
  ["vserver-list", "vserver list"],
  ["vserver-show", "vserver show beta"],
  ["disk-list", "disk list"],
  ["panel", "panel"],
  ["takeover", "takeover"],
  ["giveback-dry-run", "giveback --dry-run"],
  ["transfer", "vserver transfer beta"],
])("what a person reads: %s", async (name, command) => {
  const ran = await dyad(command);
  expect([ran.code, ran.err]).toEqual([0, ""]);
  await expect(ran.out).toMatchFileSnapshot(golden(name));
});

test("what a person reads in trouble; the exit code says degraded", async () => {
  fake.status = troubledStatus();
  const ran = await dyad("status");
  expect([ran.code, ran.err]).toEqual([3, ""]);
  await expect(ran.out).toMatchFileSnapshot(golden("status-trouble"));
  const one = await dyad("vserver show alpha");
  await expect(one.out).toMatchFileSnapshot(golden("vserver-show-failed"));
});

test("the help, and the help of a command", async () => {
  const help = await dyad("--help", { defaultSocket: "/run/dyad/dyad.sock" });
  expect(help.code).toBe(0);
  await expect(help.out).toMatchFileSnapshot(golden("help"));
  const takeover = await dyad("takeover --help");
  await expect(takeover.out).toMatchFileSnapshot(golden("help-takeover"));
});

test("colour is only for terminals", async () => {
  expect((await dyad("status")).out).not.toContain("\u001b");
  expect((await dyad("status", { colour: true })).out).toContain("\u001b[32mOK\u001b[39m");
});

test("-o json: one object per line, everything the daemon said, before or after the command", async () => {
  fake.emit({ code: "one" });
  fake.emit({ code: "two" });
  expect(jsonLines((await dyad("-o json status")).out)).toEqual([fake.status]);
  expect(jsonLines((await dyad("vserver list -o json")).out)).toEqual(fake.status.virtualServers);
  expect(jsonLines((await dyad("vserver show beta -o json")).out)).toEqual([
    { ...fake.status.virtualServers[1], definition: fake.definitions[1] },
  ]);
  expect(jsonLines((await dyad("disk list -o json")).out)).toEqual(fake.status.disks);
  expect(jsonLines((await dyad("panel -o json")).out)).toEqual([fake.view]);
  expect(jsonLines((await dyad("events -o json")).out).map((event) => event.code)).toEqual([
    "one",
    "two",
  ]);
  const answer = jsonLines((await dyad("takeover -o json")).out);
  expect(answer).toMatchObject([{ accepted: true, plan: [{ virtualServer: "beta" }] }]);
});

test("what the command asks the daemon, and who asks", async () => {
  await dyad("takeover --dry-run");
  await dyad("giveback --force --reason shelf~swap --yes");
  await dyad("vserver transfer beta");
  expect(fake.asked).toEqual([
    {
      kind: "takeover",
      virtualServer: undefined,
      request: expect.objectContaining({ dryRun: true, force: false }),
    },
    {
      kind: "giveback",
      virtualServer: undefined,
      request: expect.objectContaining({ force: true, reason: "shelf swap" }),
    },
    {
      kind: "transfer",
      virtualServer: "beta",
      request: expect.objectContaining({ dryRun: false }),
    },
  ]);
  expect(fake.asked[0]?.request.by).toMatch(/^\S{1,64}$/);
});

const refuse = (...vetoes: Veto[]) => {
  fake.answer = async () => ({ accepted: false, vetoes, plan: [] });
};

test("a refusal lists every reason; only soft ones are offered to be forced", async () => {
  refuse(hard, soft);
  const both = await dyad("takeover");
  expect([both.code, both.out]).toEqual([4, ""]);
  await expect(both.err).toMatchFileSnapshot(golden("takeover-refused"));
  refuse(soft);
  const forcible = await dyad("vserver transfer beta");
  await expect(forcible.err).toMatchFileSnapshot(golden("transfer-refused-soft"));
  expect(jsonLines((await dyad("takeover -o json")).out)).toEqual([
    { accepted: false, vetoes: [soft], plan: [] },
  ]);
  expect((await dyad("takeover --dry-run")).code).toBe(4);
});

test("the exit code tells what passes by itself and what needs the partner", async () => {
  refuse(passing, soft);
  expect((await dyad("takeover")).code).toBe(75);
  refuse(passing, hard);
  expect((await dyad("takeover")).code).toBe(4);
  fake.status = { ...healthyStatus(), partner: { heard: false } };
  expect((await dyad("giveback")).code).toBe(6);
});

test("force needs a reason and a yes, and on a terminal asks for it", async () => {
  expect((await dyad("takeover --force")).code).toBe(2);
  expect((await dyad("takeover --force --reason drill")).code).toBe(2);
  const no = await dyad("takeover --force --reason drill", { interactive: true, answer: "y" });
  expect(no.code).toBe(1);
  expect(no.asked).toContain('Type "yes"');
  expect(fake.asked).toEqual([]);
  const yes = await dyad("takeover --force --reason drill", { interactive: true, answer: "yes" });
  expect(yes.code).toBe(0);
  expect((await dyad("takeover --force --reason drill --yes")).code).toBe(0);
  expect(fake.asked.map(({ request }) => request.force)).toEqual([true, true]);
});

/** Moves beta from b to a in steps, one per look. */
function moveInSteps(steps: Partial<Status["virtualServers"][number]>[]): void {
  const { answer } = fake;
  fake.answer = async (kind, request) => {
    const [alpha, beta] = fake.status.virtualServers;
    if (!alpha || !beta) throw new Error("two servers expected");
    let looks = 0;
    const base = fake.status;
    Object.defineProperty(fake, "status", {
      configurable: true,
      get: () => {
        const step = steps[Math.min(looks, steps.length - 1)];
        looks += 1;
        return { ...base, virtualServers: [alpha, { ...beta, ...step }] };
      },
    });
    return answer(kind, request);
  };
}

test("--wait stays until the server is there, and tells each step", async () => {
  moveInSteps([
    { owner: "b", state: "elsewhere" },
    { owner: "a", state: "starting", step: "attach" },
    { owner: "a", state: "starting", step: "export" },
    { owner: "a", state: "serving" },
  ]);
  const ran = await dyad("takeover --wait");
  expect([ran.code, ran.err]).toEqual([0, ""]);
  await expect(ran.out).toMatchFileSnapshot(golden("takeover-wait"));
});

test("--wait tells a move that failed", async () => {
  moveInSteps([{ owner: "a", state: "failed", fault: "mount: device is gone" }]);
  const failed = await dyad("takeover --wait 5");
  expect([failed.code, failed.err]).toEqual([1, "dyad: beta failed: mount: device is gone\n"]);
});

test("--wait waits for one that had failed before, and is queued to be moved", async () => {
  moveInSteps([
    { owner: "b", state: "failed", step: "queued", fault: "mount: device is gone" },
    { owner: "a", state: "starting", step: "attach" },
    { owner: "a", state: "serving" },
  ]);
  expect(await dyad("takeover --wait 60")).toMatchObject({ code: 0, err: "" });
});

test("--wait tells a move that does not end", async () => {
  moveInSteps([{ owner: "b", state: "elsewhere" }]);
  const late = await dyad("-o json takeover --wait 1");
  expect(late.code).toBe(1);
  expect(jsonLines(late.out)).toEqual([
    { error: { code: "timeout", message: "takeover has not ended within 1 s; see dyad status" } },
  ]);
});

test.each([
  "nonsense",
  "vserver",
  "vserver show",
  "status surplus",
  "status --nonsense",
  "-o xml status",
  "events --after -1",
  "events --limit many",
  "events --limit 1001",
  "takeover --wait 0",
  "panel press eject",
])("usage: %s", async (command) => {
  const ran = await dyad(command);
  expect([ran.code, ran.out]).toEqual([2, ""]);
  expect(ran.err).not.toBe("");
  expect(fake.asked).toEqual([]);
});

test("buttons of the panel", async () => {
  expect((await dyad("panel press down")).code).toBe(0);
  expect(fake.pressed).toEqual(["down"]);
});

test("no daemon, a server that is not ours, an unknown name", async () => {
  const missing = await dyad("status --socket /nonexistent/socket");
  expect([missing.code, missing.err]).toEqual([
    5,
    "dyad: the daemon does not answer at /nonexistent/socket: there is no such socket\n",
  ]);
  const unknown = await dyad("-o json vserver show gamma");
  expect([unknown.code, jsonLines(unknown.out)]).toEqual([
    1,
    [
      {
        error: { code: "notFound", message: "expected the name of a virtual server, found gamma" },
      },
    ],
  ]);
  await fake.api.close();
  expect((await dyad("status")).code).toBe(5);
});

test.each([
  ["no JSON", 200, "hello"],
  ["another shape", 200, '{"version":2}'],
  ["an error of another shape", 500, "Internal Server Error"],
])("an answer that is %s is told, not shown", async (_, status, body) => {
  await fake.api.close();
  const server: Server = createServer((_, response) => response.writeHead(status).end(body));
  server.listen(socket);
  await once(server, "listening");
  try {
    const ran = await dyad("status");
    expect([ran.code, ran.out]).toEqual([1, ""]);
    expect(ran.err).toContain("not understood");
  } finally {
    server.close();
  }
});

test("a daemon newer than the command may say more", async () => {
  Object.assign(fake.status, { newField: 1 });
  expect(jsonLines((await dyad("status -o json")).out)[0]).toMatchObject({ newField: 1 });
});

test("config check, show and schema", async () => {
  const good = await dyad(`config check ${example}`);
  expect([good.code, good.out]).toEqual([
    0,
    `${example}: ok (controller a of pair 17, 2 virtual servers)\n`,
  ]);
  const file = join(directory, "broken.toml");
  writeFileSync(file, "version = 1\n[timing]\ngate_timout_ms = 5\n");
  const broken = await dyad(`config check ${file}`);
  expect([broken.code, broken.out]).toEqual([1, ""]);
  expect(broken.err).toContain(
    `${file}:3: timing.gate_timout_ms: unknown key "gate_timout_ms"; did you mean gate_timeout_ms?\n`,
  );
  const asJson = jsonLines((await dyad(`config check ${file} -o json`)).out);
  expect(asJson).toContainEqual(expect.objectContaining({ file, line: 3 }));
  expect((await dyad("config check /nonexistent.toml")).err).toContain("cannot be read");
  const show = join(directory, "shown.toml");
  writeFileSync(show, (await dyad(`config show ${example}`)).out);
  expect((await dyad(`config check ${show}`)).code).toBe(0);
  const schema = await dyad("config schema");
  expect(JSON.parse(schema.out).properties).toHaveProperty("virtual_servers");
});

test("config check knows the safety argument, and names the line of the time limit that breaks it", async () => {
  const file = join(directory, "timing.toml");
  const text = readFileSync(example, "utf8").replace(
    "gate_timeout_ms = 150",
    "gate_timeout_ms = 60",
  );
  writeFileSync(file, text);
  const line = text.slice(0, text.indexOf("\ngate_timeout_ms")).split("\n").length + 1;
  const ran = await dyad(`config check ${file}`);
  expect([ran.code, ran.out]).toEqual([1, ""]);
  expect(ran.err).toContain(`${file}:${line}: timing: gate_timeout_ms must outlast`);
});

test("nothing that the daemon says can steer the terminal", () => {
  const nasty = fc.string({ unit: "binary", maxLength: 12 }).map((text) => `\x1b]0;x\x07\r${text}`);
  fc.assert(
    fc.property(nasty, (text) => {
      const status = troubledStatus();
      status.statusText = text;
      status.actionText = text;
      status.takeover = { possible: false, vetoes: [{ ...hard, message: text }] };
      status.refusedFrames = { [text]: 1 };
      status.disks = status.disks.map((disk) => ({ ...disk, serial: text, virtualServer: text }));
      status.virtualServers = status.virtualServers.map((server) => ({
        ...server,
        name: text,
        step: text,
        addresses: [text],
        exports: [text],
        fault: text,
      }));
      const event = { ...fake.emit({ message: text, code: text }) };
      const shown = statusText(status, coloursFor(false)) + eventText(event, coloursFor(false));
      expect(shown.replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
    }),
    { numRuns: 100 },
  );
});
