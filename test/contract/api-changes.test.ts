import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { apiBodyBytesMax } from "../../firmware-ts/schema/api.ts";
import { definitionViewSchema } from "../../firmware-ts/schema/api-change.ts";
import { callApi, errorOf } from "../support/api-call.ts";
import type { FakeDaemon } from "../support/fake-daemon.ts";
import { listeningDaemons } from "../support/listening-daemon.ts";

const { listen } = listeningDaemons("api-changes");

let fake: FakeDaemon;
let socketPath: string;
beforeEach(async () => {
  ({ fake, socket: socketPath } = await listen());
});
afterEach(() => fake.api.close());

const call = (method: string, path: string, body?: string | object) =>
  callApi(socketPath, method, path, body);

const gamma = {
  name: "gamma",
  home: "b",
  addresses: ["10.0.0.102/24"],
  volumes: [{ disk: "data-3", export: "/gamma" }],
};
const defaults = { dryRun: false, force: false, reason: "" };

test("a definition is shown whole, with its sequence and what is known of its last start", async () => {
  for (const definition of fake.definitions) {
    const { status, json } = await call("GET", `/v1/vservers/${definition.server.name}/definition`);
    expect([status, definitionViewSchema.parse(json)]).toEqual([200, definition]);
  }
});

test("create asks for all of it, with every default filled in", async () => {
  const answer = await call("POST", "/v1/vservers", { server: gamma, by: "root" });
  expect(answer.status).toBe(202);
  const server = {
    ...gamma,
    routes: [],
    rules: [],
    volumes: [{ ...gamma.volumes[0], id: 1 }],
    limits: { cpuWeight: 100, processes: 512 },
  };
  expect(fake.changes).toEqual([
    { change: { action: "create", name: "gamma", server }, request: { ...defaults, by: "root" } },
  ]);
});

describe("modify", () => {
  const beta = () => structuredClone(fake.definitions[1]?.server);
  const asked = () => fake.changes[0]?.change.server?.volumes.map(({ id, disk }) => [id, disk]);

  test("asks for all of it, made for the sequence that the client has seen", async () => {
    const server = { ...beta(), home: "a" };
    const answer = await call("PUT", "/v1/vservers/beta", { server, expectedSequence: 4 });
    expect(answer.status).toBe(202);
    expect(fake.changes).toEqual([
      {
        change: { action: "modify", name: "beta", server, expectedSequence: 4 },
        request: defaults,
      },
    ]);
  });

  test("leaves the id of a disk that stays, when the client says none; a new disk gets a new one", async () => {
    const volumes = [
      { disk: "data-9", export: "/nine" },
      { disk: "data-2", export: "/elsewhere" },
    ];
    await call("PUT", "/v1/vservers/beta", { server: { ...beta(), volumes } });
    expect(asked()).toEqual([
      [3, "data-9"],
      [2, "data-2"],
    ]);
  });

  test("takes the id that the client says", async () => {
    const volumes = [{ id: 5, disk: "data-2", export: "/beta" }];
    await call("PUT", "/v1/vservers/beta", { server: { ...beta(), volumes } });
    expect(asked()).toEqual([[5, "data-2"]]);
  });
});

test.each([
  ["start", "POST", "/v1/vservers/beta/start"],
  ["stop", "POST", "/v1/vservers/beta/stop"],
  ["delete", "DELETE", "/v1/vservers/beta"],
])("%s, without a body with all defaults", async (action, method, path) => {
  expect((await call(method, path)).status).toBe(202);
  const body = { dryRun: true, force: true, reason: "drill", by: "root", expectedSequence: 2 };
  expect((await call(method, path, body)).status).toBe(200);
  const { expectedSequence, ...request } = body;
  expect(fake.changes).toEqual([
    { change: { action, name: "beta" }, request: defaults },
    { change: { action, name: "beta", expectedSequence }, request },
  ]);
});

test("a refusal lists every veto; its dry run is an ordinary answer", async () => {
  const veto = { code: "notHere", severity: "hard" as const, message: "ask controller b" };
  fake.answer = async () => ({ accepted: false, vetoes: [veto], plan: [] });
  const refused = await call("POST", "/v1/vservers", { server: gamma });
  expect(refused.status).toBe(409);
  expect(errorOf(refused)).toMatchObject({ code: "notPossible", vetoes: [veto] });
  expect(errorOf(refused).message).toBe("create gamma is not possible now");
  const dry = await call("DELETE", "/v1/vservers/beta", { dryRun: true });
  expect([dry.status, dry.json]).toEqual([200, { accepted: false, vetoes: [veto], plan: [] }]);
});

const large = {
  ...gamma,
  volumes: Array.from({ length: 9 }, (_, i) => ({ disk: `d${i}`, export: `/${i}` })),
};
const mistakes: [string, string, string, object, number, string][] = [
  [
    "unknown name",
    "PUT",
    "/v1/vservers/delta",
    { server: gamma },
    404,
    "expected the name of a virtual server, found delta",
  ],
  [
    "unknown name",
    "POST",
    "/v1/vservers/delta/start",
    {},
    404,
    "expected the name of a virtual server, found delta",
  ],
  [
    "unknown name",
    "DELETE",
    "/v1/vservers/delta",
    {},
    404,
    "expected the name of a virtual server, found delta",
  ],
  ["nothing of it", "POST", "/v1/vservers", {}, 400, "server: expected a table"],
  [
    "no name",
    "POST",
    "/v1/vservers",
    { server: { ...gamma, name: undefined } },
    400,
    "server.name: expected a text",
  ],
  [
    "bad name",
    "POST",
    "/v1/vservers",
    { server: { ...gamma, name: "Gamma" } },
    400,
    "server.name: expected a lower-case name of at most 15 letters, digits or dashes",
  ],
  [
    "bad home",
    "POST",
    "/v1/vservers",
    { server: { ...gamma, home: "c" } },
    400,
    'server.home: expected one of "a", "b"',
  ],
  [
    "no address",
    "POST",
    "/v1/vservers",
    { server: { ...gamma, addresses: [] } },
    400,
    "server.addresses: expected an array of 1 to 8 entries",
  ],
  [
    "bare address",
    "POST",
    "/v1/vservers",
    { server: { ...gamma, addresses: ["10.0.0.1"] } },
    400,
    "server.addresses.0: expected an address with its prefix length, as in 10.0.0.100/24",
  ],
  [
    "too many volumes",
    "POST",
    "/v1/vservers",
    { server: large },
    400,
    "server.volumes: expected an array of 1 to 8 entries",
  ],
  [
    "a limit below what a file server starts with",
    "POST",
    "/v1/vservers",
    { server: { ...gamma, limits: { memoryMb: 63 } } },
    400,
    "server.limits.memoryMb: expected a whole number from 64 to 1048576",
  ],
  [
    "a limit that there is not",
    "POST",
    "/v1/vservers",
    { server: { ...gamma, limits: { memory: 64 } } },
    400,
    'server.limits: unknown key "memory"; known here: cpu_weight, cpu_percent, memory_mb, processes, bandwidth_mbit',
  ],
  [
    "misspelt key",
    "POST",
    "/v1/vservers",
    { server: { ...gamma, adresses: [] } },
    400,
    'server: unknown key "adresses"; did you mean addresses?',
  ],
  [
    "misspelt request",
    "POST",
    "/v1/vservers",
    { server: gamma, expectedSequence: 1 },
    400,
    'Unrecognized key: "expectedSequence"',
  ],
  [
    "no sequence",
    "POST",
    "/v1/vservers/beta/stop",
    { expectedSequence: "2" },
    400,
    "expectedSequence: Invalid input: expected number, received string",
  ],
  [
    "force without reason",
    "DELETE",
    "/v1/vservers/beta",
    { force: true },
    400,
    "reason: expected a reason together with force",
  ],
];

test.each(mistakes)("%s: %s %s", async (_, method, path, body, status, message) => {
  const answer = await call(method, path, body);
  expect([answer.status, errorOf(answer).message]).toEqual([status, message]);
  expect(fake.changes).toEqual([]);
});

test("the largest definition that there may be is read", async () => {
  const many = <T>(count: number, make: (i: number) => T) =>
    Array.from({ length: count }, (_, i) => make(i));
  const address = (i: number) => `fd00:1111:2222:3333:4444:5555:6666:77${10 + i}/128`;
  const server = {
    ...gamma,
    addresses: many(8, address),
    routes: many(16, (i) => ({
      to: address(i),
      via: "fd00:1111:2222:3333:4444:5555:6666:7777",
      table: 252,
    })),
    rules: many(16, (i) => ({ from: address(i), table: 252 })),
    volumes: many(8, (i) => ({
      id: i + 1,
      disk: `d${"x".repeat(30)}${i}`,
      export: `/${"y".repeat(62)}${i}`,
    })),
  };
  const body = JSON.stringify({ server, reason: "z".repeat(200), by: "z".repeat(64) });
  console.log(`the largest definition is ${body.length} bytes`);
  expect(body.length).toBeLessThan(apiBodyBytesMax / 2);
  expect((await call("POST", "/v1/vservers", body)).status).toBe(202);
});

test("any JSON as a definition is understood or refused in words, and never reaches the daemon half-way", async () => {
  const json = fc.oneof(
    fc.json({ maxDepth: 4 }),
    fc
      .record({
        server: fc.dictionary(
          fc.constantFrom("name", "home", "addresses", "volumes", "routes"),
          fc.jsonValue(),
        ),
      })
      .map((value) => JSON.stringify(value)),
  );
  await fc.assert(
    fc.asyncProperty(json, async (body) => {
      const answer = await call("POST", "/v1/vservers", body);
      expect([400, 413]).toContain(answer.status);
      expect(errorOf(answer).message).not.toBe("");
    }),
    { numRuns: 200 },
  );
  expect(fake.changes).toEqual([]);
});
