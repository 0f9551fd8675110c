import { afterEach, beforeEach, expect, test } from "vitest";
import { runDyad } from "../support/cli-run.ts";
import type { FakeDaemon } from "../support/fake-daemon.ts";
import { listeningDaemons } from "../support/listening-daemon.ts";

const { listen } = listeningDaemons("cli-shares");

let fake: FakeDaemon;
let socket: string;
beforeEach(async () => {
  ({ fake, socket } = await listen());
});
afterEach(() => fake.api.close());

const dyad = (command: string) => runDyad(socket, command);

test("what SMB clients find is shown beside what NFS clients mount", async () => {
  const [alpha] = fake.status.virtualServers;
  if (!alpha) throw new Error("two servers expected");
  Object.assign(alpha, { shares: ["Alpha", "Hidden$"] });
  expect((await dyad("vserver list")).out).toContain("/alpha smb:Alpha smb:Hidden$");
  expect((await dyad("vserver show alpha")).out).toContain("shares: Alpha, Hidden$\n");
  Object.assign(alpha, { exports: [] });
  expect((await dyad("vserver show alpha")).out).not.toContain("exports:");
});

test("with volumes for NFS, for SMB, and for both", async () => {
  const words = "--export data-4=/four --share data-4=Four --share data-5=Five$";
  const ran = await dyad(
    `vserver create gamma --address 10.0.0.102/24 ${words} --guest --user anna=1001`,
  );
  expect([ran.code, ran.err]).toEqual([0, ""]);
  expect(fake.changes[0]?.change.server).toMatchObject({
    volumes: [
      { disk: "data-4", export: "/four", share: "Four" },
      { disk: "data-5", share: "Five$" },
    ],
    smb: { guest: true, users: [{ name: "anna", uid: 1001 }] },
  });
});

test.each([
  [
    "share add alpha data-1 Alpha --guest",
    {
      volumes: [{ id: 1, disk: "data-1", export: "/alpha", share: "Alpha" }],
      smb: { workgroup: "WORKGROUP", guest: true, users: [], writeThrough: true },
    },
  ],
  [
    "share add alpha data-9 Nine --user anna=1001:100 --user berta=1002",
    {
      volumes: [
        { id: 1, disk: "data-1", export: "/alpha" },
        { id: 2, disk: "data-9", share: "Nine" },
      ],
      smb: {
        guest: false,
        users: [
          { name: "anna", uid: 1001, gid: 100 },
          { name: "berta", uid: 1002 },
        ],
      },
    },
  ],
])("%s", async (words, change) => {
  const ran = await dyad(`vserver ${words}`);
  expect([ran.code, ran.err]).toEqual([0, ""]);
  expect(fake.changes).toMatchObject([
    {
      change: {
        action: "modify",
        name: "alpha",
        expectedSequence: 3,
        server: { ...fake.definitions[0]?.server, ...change },
      },
    },
  ]);
});

test("shares, users and settings of SMB come and go, and the last share takes the settings with it", async () => {
  const alpha = fake.definitions[0];
  if (!alpha) throw new Error("two definitions expected");
  const anna = { name: "anna", uid: 1001, gid: 100 };
  const smb = { workgroup: "WORKGROUP", guest: false, users: [anna], writeThrough: true };
  Object.assign(alpha.server, {
    volumes: [
      { id: 1, disk: "data-1", export: "/alpha", share: "Alpha" },
      { id: 2, disk: "data-9", share: "Nine" },
    ],
    smb,
  });
  const both = alpha.server.volumes;
  const cases: readonly (readonly [string, object])[] = [
    [
      "share remove alpha Alpha",
      { volumes: [{ id: 1, disk: "data-1", export: "/alpha" }, both[1]], smb },
    ],
    ["share remove alpha data-1", { volumes: [both[1]], smb }],
    ["share remove alpha Nine", { volumes: [both[0]], smb }],
    [
      "export remove alpha /alpha",
      { volumes: [{ id: 1, disk: "data-1", share: "Alpha" }, both[1]], smb },
    ],
    ["user add alpha berta=1002", { smb: { ...smb, users: [anna, { name: "berta", uid: 1002 }] } }],
    [
      "share set alpha guest=true workgroup=LAB",
      {
        smb: { ...smb, guest: true, workgroup: "LAB" },
      },
    ],
    ["share set alpha guest=none", { smb }],
  ];
  for (const [command, change] of cases) {
    fake.changes.length = 0;
    expect(await dyad(`vserver ${command}`), command).toMatchObject({ code: 0, err: "" });
    expect(fake.changes[0]?.change.server, command).toEqual({ ...alpha.server, ...change });
  }
  alpha.server.volumes.pop();
  fake.changes.length = 0;
  await dyad("vserver share remove alpha Alpha");
  const { smb: _gone, ...rest } = alpha.server;
  expect(fake.changes[0]?.change.server).toEqual({
    ...rest,
    volumes: [{ id: 1, disk: "data-1", export: "/alpha" }],
  });
  Object.assign(alpha.server, { smb: { ...smb, guest: true } });
  await dyad("vserver user remove alpha anna");
  expect(fake.changes[1]?.change.server?.smb).toEqual({ ...smb, guest: true, users: [] });
});

test.each([
  [
    "share add alpha data-1 Alpha --user anna",
    "expected NAME=UID or NAME=UID:GID, as in anna=1001:100; found anna",
  ],
  ["share remove alpha Alpha", "alpha has no share Alpha; it has /alpha (disk data-1)"],
  [
    "share set alpha users=anna",
    "expected one of workgroup=VALUE, guest=VALUE, write_through=VALUE; found users=anna",
  ],
  ["user remove alpha anna", "alpha has no user anna; it has none"],
  ["create x --share data-3", "expected DISK=SHARE"],
  ["create x --user anna=me", "expected NAME=UID"],
])("%s is refused", async (words, message) => {
  const ran = await dyad(`vserver ${words}`);
  expect([1, 2]).toContain(ran.code);
  expect(ran.err).toContain(message);
  expect(fake.changes).toEqual([]);
});
