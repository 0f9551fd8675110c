/** The configuration file: what is accepted, and how well each refusal says where, what was expected and what was found. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { judgeConfig } from "../../firmware-ts/core/config-check.ts";
import { loadConfig } from "../../firmware-ts/daemon/config.ts";
import {
  configBytesMax,
  configJsonSchema,
  formatConfig,
  parseConfigBytes,
  parseConfigText,
} from "../../firmware-ts/schema/config-text.ts";
import { sharedConfigurationCrc } from "../../firmware-ts/wire/configuration.ts";

const examplePath = join(import.meta.dirname, "../../docs/dyad.toml.example");
const example = readFileSync(examplePath, "utf8");
const directory = mkdtempSync(join(tmpdir(), "dyad-config-"));
afterAll(() => rmSync(directory, { recursive: true }));

/** The example with one line changed, and the number of that line. */
function edited(from: string, to: string): { text: string; line: number } {
  expect(example).toContain(from);
  const line = example.slice(0, example.indexOf(from)).split("\n").length;
  return { text: example.replace(from, to), line };
}

function problemsOf(text: string): string[] {
  const outcome = parseConfigText(text, "dyad.toml");
  if (outcome.ok) throw new Error("expected problems, found a configuration");
  return outcome.fault.message.split("\n");
}

function parsed(text: string) {
  const outcome = parseConfigText(text, "dyad.toml");
  if (!outcome.ok) throw new Error(outcome.fault.message);
  return outcome.value;
}

test("the annotated example parses, and says in comments what the defaults really are", async () => {
  const outcome = await loadConfig(examplePath);
  if (!outcome.ok) throw new Error(outcome.fault.message);
  expect(outcome.value.pair).toEqual({ id: 17, keyFile: "/etc/dyad/pair.key" });
  expect(outcome.value.virtualServers.map((each) => each.name)).toEqual(["alpha", "beta"]);
  const withoutTiming = example.replace(/^\[timing\][^[]*/m, "");
  expect(withoutTiming).not.toBe(example);
  expect(parsed(withoutTiming).timing).toEqual(outcome.value.timing);
});

const mistakes: [string, string, string, string][] = [
  [
    "misspelt key",
    "gate_timeout_ms = 150",
    "gate_timout_ms = 150",
    'timing.gate_timout_ms: unknown key "gate_timout_ms"; did you mean gate_timeout_ms?',
  ],
  [
    "key of another table",
    'nic = "eth0"',
    'nic = "eth0"  \ngate_timeout_ms = 150',
    'data.gate_timeout_ms: unknown key "gate_timeout_ms"; that key belongs to [timing]',
  ],
  [
    "key in camelCase",
    "gate_timeout_ms = 150",
    "gateTimeoutMs = 150",
    'timing.gateTimeoutMs: unknown key "gateTimeoutMs"; did you mean gate_timeout_ms?',
  ],
  [
    "key that is nothing alike",
    "id = 17",
    "id = 17\nzzzzzzzz = 1",
    'pair.zzzzzzzz: unknown key "zzzzzzzz"; known here: id, key_file',
  ],
  [
    "key with a meaning in JavaScript",
    "id = 17",
    "id = 17\n__proto__ = 1",
    'pair.__proto__: unknown key "__proto__"; known here: id, key_file',
  ],
  [
    "wrong type",
    "id = 17",
    'id = "17"',
    'pair.id: expected a whole number from 1 to 65535; found "17"',
  ],
  [
    "too small",
    "beat_interval_ms = 10 ",
    "beat_interval_ms = 4 ",
    "timing.beat_interval_ms: expected a whole number from 5 to 1000; found 4",
  ],
  [
    "fraction",
    "beat_interval_ms = 10 ",
    "beat_interval_ms = 10.5 ",
    "timing.beat_interval_ms: expected a whole number from 5 to 1000; found 10.5",
  ],
  [
    "relative path",
    'path = "/dev/ttyS1"',
    'path = "ttyS1"',
    'links.serial.path: expected an absolute path; found "ttyS1"',
  ],
  [
    "date where an address belongs",
    'local = "192.168.254.1"',
    "local = 2026-11-01",
    "links.network.local: expected an IPv4 or IPv6 address; found a date or time",
  ],
  [
    "choice",
    'home = "b"',
    'home = "c"',
    'virtual_servers[1].home: expected one of "a", "b"; found "c"',
  ],
  [
    "address without prefix length",
    '["10.0.0.101/24"]',
    '["10.0.0.101"]',
    'virtual_servers[1].addresses[0]: expected an address with its prefix length, as in 10.0.0.100/24; found "10.0.0.101"',
  ],
  [
    "misspelt limit",
    "memory_mb = 2048",
    "memory_gb = 2",
    'virtual_servers[0].limits.memory_gb: unknown key "memory_gb"; did you mean memory_mb?',
  ],
  [
    "limit of a virtual server written beside its volumes",
    'export = "/beta"',
    'export = "/beta"  \ncpu_percent = 20',
    'virtual_servers[1].volumes[0].cpu_percent: unknown key "cpu_percent"; that key belongs to [virtual_servers.limits]',
  ],
  [
    "disk link turned off",
    "disk = true ",
    "disk = false ",
    "links.disk: expected true, because a controller that is alone may answer only on the ground of its beats on the coordinator disks; found false",
  ],
  [
    "even number of coordinators",
    '["coord-1", "coord-2", "coord-3"]',
    '["coord-1", "coord-2"]',
    "shelf.coordinators: expected an odd number of coordinator disks; found an array of 2",
  ],
  [
    "disk used twice",
    'disk = "data-2"',
    'disk = "data-1"',
    "virtual_servers[1].volumes[0].disk: disk data-1 is already used by alpha",
  ],
];

test.each(mistakes)(
  "%s: the line, what was expected and what was found",
  (_, from, to, message) => {
    const { text, line } = edited(from, to);
    const added = to.split("\n").length - from.split("\n").length;
    expect(problemsOf(text)).toContain(`dyad.toml:${line + added}: ${message}`);
  },
);

const defaultRoute = '{ to = "default", via = "10.0.0.1" }';

test.each([
  ["a default route without gateway", '{ to = "default" }', /expected via/],
  ["bits behind the prefix", '{ to = "10.1.0.1/24", via = "10.0.0.1" }', /without bits behind/],
  ["two families", '{ to = "10.1.0.0/24", via = "fd00:17::1" }', /same family/],
  [
    "a gateway that nothing leads to",
    '{ to = "default", via = "10.0.1.1" }',
    /gateway in the network/,
  ],
  [
    "two ways to one destination",
    `${defaultRoute}, { to = "0.0.0.0/0", via = "10.0.0.2" }`,
    /one route to each destination/,
  ],
])("a route that the kernel would refuse later is refused now: %s", (_, to, message) => {
  const problems = problemsOf(edited(defaultRoute, to).text);
  expect(problems).toHaveLength(1);
  expect(problems[0]).toMatch(message);
});

test.each([
  ["by IPv4 and by IPv6", `${defaultRoute}, { to = "default", via = "fd00:17::1" }`],
  ["by a gateway that has an address of the link only", '{ to = "default", via = "fe80::1" }'],
  [
    "by a gateway that an earlier route leads to",
    '{ to = "192.0.2.1/32" }, { to = "default", via = "192.0.2.1" }',
  ],
])("a default route %s is accepted", (_, to) => {
  expect(parsed(edited(defaultRoute, to).text).virtualServers[0]?.routes.length).toBeGreaterThan(0);
});

test("a virtual server without limits has the defaults, which bound a fork bomb and nothing else", () => {
  const [alpha, beta] = parsed(example).virtualServers;
  expect(beta?.limits).toEqual({ cpuWeight: 100, processes: 512 });
  expect(alpha?.limits).toEqual({
    cpuWeight: 100,
    cpuPercent: 150,
    memoryMb: 2048,
    processes: 512,
    bandwidthMbit: 1000,
  });
});

/** The example has each limit once, with its bounds in the comment. */
test.each([
  ["cpu_weight = 100", "cpu_weight", 1, 10_000],
  ["cpu_percent = 150", "cpu_percent", 5, 25_600],
  ["memory_mb = 2048", "memory_mb", 64, 1_048_576],
  ["processes = 512 ", "processes", 256, 32_768],
  ["bandwidth_mbit = 1000", "bandwidth_mbit", 1, 100_000],
])(
  "%s: at its bounds it is taken, beyond them and as a fraction it is refused",
  (from, key, least, most) => {
    const line = new RegExp(`^${from}.* ${least} to ${most}:`, "m");
    expect(example).toMatch(line);
    const set = (value: number) => edited(from, `${key} = ${value}`).text;
    for (const value of [least, most]) expect(parsed(set(value)).virtualServers).toHaveLength(2);
    for (const value of [least - 1, most + 1, least + 0.5])
      expect(problemsOf(set(value))[0]).toContain(
        `virtual_servers[0].limits.${key}: expected a whole number from ${least} to ${most}; found ${value}`,
      );
  },
);

test("an address in another spelling is the same address: two servers would answer at it", () => {
  const { text } = edited('["10.0.0.101/24"]', '["fd00:17:0::0100/64"]');
  expect(problemsOf(text).join()).toContain("address fd00:17::100 is already used by alpha");
});

test("as many addresses as one renewal of all gates can bear, and no more", () => {
  const server = (i: number, count: number) => `
[[virtual_servers]]
name = "more-${i}"
home = "a"
addresses = [${Array.from({ length: count }, (_, j) => `"10.1.${i}.${j + 1}/24"`).join(", ")}]
volumes = [{ disk = "more-${i}", export = "/more/${i}" }]
`;
  // The example has three.
  const full = example + Array.from({ length: 15 }, (_, i) => server(i, 8)).join("");
  expect(parsed(full + server(15, 5)).virtualServers).toHaveLength(18);
  expect(problemsOf(full + server(15, 6)).join()).toContain("expected at most 128 addresses");
});

test("several mistakes are reported at once, in the order of the file", () => {
  const text = example
    .replace("id = 17", 'id = "x"')
    .replace("gate_timeout_ms = 150", "gate_timout_ms = 150")
    .replace('home = "b"', 'home = "c"')
    .replace('portal = "10.99.0.1:3260"\n', "");
  const problems = problemsOf(text);
  expect(problems.map((each) => each.split(": ")[1])).toEqual([
    "pair.id",
    "timing.gate_timout_ms",
    "shelf.portal",
    "virtual_servers[1].home",
  ]);
  const shelfLine = text.slice(0, text.indexOf("\n[shelf]") + 1).split("\n").length;
  expect(problems[2]).toBe(`dyad.toml:${shelfLine}: shelf.portal: expected a text; found nothing`);
});

test.each([
  ["unfinished array", "a = [1,\nb = 2\n", 2],
  ["unfinished string", "version = 1\nx = 'a\n", 2],
  ["table twice", "[a]\n[a]\n", 2],
  ["key twice", "a = 1\na = 2\n", 2],
  ["number that does not fit", "version = 1\na = 99999999999999999999\n", 2],
  ["nesting without end", `a = ${"[".repeat(500)}${"]".repeat(500)}\n`, 1],
])("syntax: %s names the line", (_, text, line) => {
  expect(problemsOf(text)[0]).toMatch(new RegExp(`^dyad\\.toml:${line}: expected TOML, found "`));
});

test("an empty file says what is missing", () => {
  expect(problemsOf("").map((each) => each.split(": ")[1])).toEqual([
    "version",
    "controller",
    "pair",
    "links",
    "data",
    "shelf",
  ]);
});

test("the size limit: at the limit it is parsed, one byte more is refused", () => {
  const padded = (size: number) => {
    const bytes = new Uint8Array(size).fill(0x0a);
    bytes.set(new TextEncoder().encode(example));
    return parseConfigBytes(bytes, "dyad.toml");
  };
  expect(padded(configBytesMax).ok).toBe(true);
  const refused = padded(configBytesMax + 1);
  expect(refused).toMatchObject({ ok: false, fault: { code: "badInput" } });
});

test("bytes that are not UTF-8 are refused", () => {
  const refused = parseConfigBytes(Uint8Array.of(0x61, 0xff, 0xfe), "dyad.toml");
  expect(!refused.ok && refused.fault.message).toContain("expected UTF-8 text");
});

test("a path that is missing, a directory, a device or a pipe is a problem, not an exception", async () => {
  const pipe = join(directory, "pipe");
  execFileSync("mkfifo", [pipe]);
  for (const path of [join(directory, "missing"), directory, "/dev/zero", pipe]) {
    const outcome = await loadConfig(path);
    expect(!outcome.ok && outcome.fault.message, path).toMatch(/^\/.*:1: cannot be read: /);
  }
});

test("times that break the safety argument are refused with their line, by the daemon's own reading", async () => {
  const path = join(directory, "timing.toml");
  const { text, line } = edited("gate_timeout_ms = 150 ", "gate_timeout_ms = 60 ");
  writeFileSync(path, text);
  const outcome = await loadConfig(path);
  if (outcome.ok) throw new Error("expected problems, found a configuration");
  const [first] = outcome.fault.message.split("\n");
  expect(first).toMatch(new RegExp(`^${path}:${line}: timing: gate_timeout_ms must outlast`));
});

test("a time with its default is blamed on the table that made it wrong", async () => {
  const { text } = edited("disk_silence_ms = 90 ", "disk_silence_ms = 9000 ");
  const without = text.replace(/^gate_timeout_ms.*\n/m, "");
  const outcome = judgeConfig(new TextEncoder().encode(without), "f");
  const line = without.split("\n").indexOf("[timing]") + 1;
  expect(outcome.ok ? [] : outcome.problems).toContainEqual(
    expect.objectContaining({ line, path: "timing" }),
  );
});

test("a file larger than the limit is not read whole", async () => {
  const path = join(directory, "large.toml");
  writeFileSync(path, "#".repeat(configBytesMax * 4));
  const outcome = await loadConfig(path);
  expect(!outcome.ok && outcome.fault.message).toContain(`at most ${configBytesMax} bytes`);
});

test("what `config show` prints is a configuration again, the same one", () => {
  const config = parsed(example);
  expect(parsed(formatConfig(config))).toEqual(config);
});

test("the JSON Schema is in the file's spelling", () => {
  const text = JSON.stringify(configJsonSchema());
  expect(text).toContain('"virtual_servers"');
  expect(text).toContain('"gate_timeout_ms"');
  expect(text).not.toMatch(/"(virtualServers|gateTimeoutMs|keyFile)"/);
});

test("both controllers of a pair compute the same fingerprint", () => {
  const a = parsed(example);
  const b = parsed(
    example
      .replace('id = "a" ', 'id = "b" ')
      .replace('local = "192.168.254.1"', 'local = "192.168.254.2"')
      .replace('partner = "192.168.254.2"', 'partner = "192.168.254.1"')
      .replace('nic = "eth0"', 'nic = "eth7"')
      .replace("controller-a", "controller-b")
      .replace('["coord-1", "coord-2"', '["coord-2", "coord-1"'),
  );
  expect(b.controller.id).toBe("b");
  expect(sharedConfigurationCrc(b)).toBe(sharedConfigurationCrc(a));
});

test.each([
  ["id = 17", "id = 18"],
  ["gate_timeout_ms = 150", "gate_timeout_ms = 151"],
  ["shelf-1", "shelf-2"],
  ["coord-3", "coord-4"],
])("the fingerprint changes with %s", (from, to) => {
  const { text } = edited(from, to);
  expect(sharedConfigurationCrc(parsed(text))).not.toBe(sharedConfigurationCrc(parsed(example)));
});
