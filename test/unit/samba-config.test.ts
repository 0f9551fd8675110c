/** What smbd is told: every word means itself, and both controllers say the same. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  machineSid,
  renderConfiguration,
  renderGroup,
  renderPasswd,
  type SmbServiceSpec,
  smbServiceSchema,
} from "../../hal/linux/samba/config.ts";

const spec: SmbServiceSpec = {
  name: "alpha",
  workgroup: "WORKGROUP",
  addresses: ["10.0.0.100"],
  guest: false,
  users: [
    { name: "anna", uid: 1001, gid: 100 },
    { name: "berta", uid: 1002, gid: 100 },
  ],
  writeThrough: true,
  shares: [
    { name: "Projects", path: "/srv/d1", shared: false },
    { name: "Old$", path: "/srv/d2", shared: true },
  ],
  passwordFile: "/srv/d1/.dyad/smb/smbpasswd",
};
const folder = "/run/dyad/services/samba-alpha.1.1";
const rendered = (change: Partial<SmbServiceSpec> = {}) =>
  renderConfiguration(smbServiceSchema.parse({ ...spec, ...change }), folder);

/** The file as smb.conf(5) says it is read: sections of names and values. */
function sections(text: string): Record<string, Record<string, string>> {
  const all: Record<string, Record<string, string>> = {};
  let section: Record<string, string> = {};
  for (const line of text.trimEnd().split("\n")) {
    const [, header] = /^\[(.+)\]$/.exec(line) ?? [];
    const [, key = "", value = ""] = /^ {2}([a-z0-9 ]+) = (.+)$/.exec(line) ?? [];
    if (header === undefined) {
      expect(key, line).not.toBe("");
      section[key] = value;
    } else {
      section = {};
      all[header] = section;
    }
  }
  return all;
}

describe("smb.conf", () => {
  test("has a section for each share, and nothing but what it is given", () => {
    const { global = {}, ...shares } = sections(rendered());
    expect(Object.keys(shares)).toEqual(["Projects", "Old$"]);
    expect(shares.Projects).toMatchObject({ path: "/srv/d1", "read only": "no", "guest ok": "no" });
    expect(global).toMatchObject({
      "netbios name": "ALPHA",
      "server min protocol": "SMB2_10",
      "disable netbios": "yes",
      "smb ports": "445",
      "strict sync": "yes",
      "sync always": "yes",
      "map to guest": "Never",
      "restrict anonymous": "2",
      "veto files": "/.dyad/",
      "follow symlinks": "no",
      "load printers": "no",
      "passdb backend": "smbpasswd:/srv/d1/.dyad/smb/smbpasswd",
    });
    for (const key of ["private dir", "state directory", "lock directory", "pid directory"])
      expect(global[key]).toMatch(`${folder}/`);
  });

  test("lends files to clients only where nobody else works in them", () => {
    const { Projects, Old$ } = sections(rendered());
    const alone = { oplocks: "yes", "posix locking": "no", "durable handles": "yes" };
    expect(Projects).toMatchObject(alone);
    expect(Old$).toMatchObject({
      oplocks: "no",
      "level2 oplocks": "no",
      "posix locking": "yes",
      "durable handles": "no",
    });
  });

  test("lets guests in, and gives up writing through, where that is said", () => {
    const { global, Projects } = sections(rendered({ guest: true, writeThrough: false }));
    expect(global).toMatchObject({ "map to guest": "Bad User", "sync always": "no" });
    expect(global?.["strict sync"]).toBe("yes");
    expect(Projects?.["guest ok"]).toBe("yes");
  });

  test.each([
    ["a line of its own", "/srv/d1\n[evil]\npath = /"],
    ["a carriage return", "/srv/d1\rpath = /"],
    ["a macro", "/srv/%U"],
    ["a quote", '/srv/"'],
    ["a continuation", "/srv/d1\\"],
    ["a blank at its end", "/srv/d1 "],
    ["a relative path", "srv"],
    ["nothing", ""],
  ])("takes no path with %s", (_, path) => {
    const bad = { shares: [{ name: "a", path, shared: false }] };
    expect(() => rendered(bad)).toThrow(/absolute path/);
    expect(() => rendered({ passwordFile: path })).toThrow(/absolute path/);
    const service = smbServiceSchema.parse(spec);
    expect(() => renderConfiguration(service, path)).toThrow(/absolute path/);
  });

  test.each([
    ["a section's end", { shares: [{ name: "a]", path: "/srv", shared: false }] }],
    ["a section of smbd's own", { shares: [{ name: "homes", path: "/srv", shared: false }] }],
    ["two lines in its name", { name: "a\nb" }],
    ["two lines in its workgroup", { workgroup: "A\nB" }],
    ["a user of two fields", { users: [{ name: "a:b", uid: 1, gid: 1 }] }],
    ["a user of two lines", { users: [{ name: "a\nb", uid: 1, gid: 1 }] }],
    ["a user who is root", { users: [{ name: "anna", uid: 0, gid: 1 }] }],
    ["no share", { shares: [] }],
  ])("is made of nothing with %s", (_, change) => {
    expect(smbServiceSchema.safeParse({ ...spec, ...change }).success).toBe(false);
  });

  test("has as many lines for any names and paths that are taken", () => {
    const lines = rendered().split("\n").length;
    const text = fc.string({ unit: "binary", maxLength: 12 });
    fc.assert(
      fc.property(text, text, text, (name, path, workgroup) => {
        const parsed = smbServiceSchema.safeParse({
          ...spec,
          workgroup: `W${workgroup}`,
          shares: [
            { name: `a${name}`, path: `/srv/${path}`, shared: false },
            ...spec.shares.slice(1),
          ],
        });
        if (!parsed.success) return;
        const made = renderConfiguration(parsed.data, folder);
        expect(made.split("\n")).toHaveLength(lines);
        expect(sections(made)[`a${name}`]?.path).toBe(`/srv/${path}`);
      }),
      { numRuns: 500 },
    );
  });
});

describe("the accounts that smbd knows", () => {
  const service = smbServiceSchema.parse(spec);

  test("are root, the guests and the users, none of whom has a shell", () => {
    const lines = renderPasswd(service).trimEnd().split("\n");
    expect(lines.map((line) => line.split(":").slice(0, 4).join(":"))).toEqual([
      "root:x:0:0",
      "nobody:x:65534:65534",
      "anna:x:1001:100",
      "berta:x:1002:100",
    ]);
    for (const line of lines) {
      expect(line.split(":")).toHaveLength(7);
      expect(line).toMatch(/:\/usr\/sbin\/nologin$/);
    }
  });

  test("have a group for every number, once", () => {
    expect(renderGroup(service)).toBe("root:x:0:\nnogroup:x:65534:\ngid100:x:100:\n");
  });
});

describe("the identity of a server", () => {
  const sidOf = (change: Partial<SmbServiceSpec>) =>
    machineSid(smbServiceSchema.parse({ ...spec, ...change }));

  test("is of its name and its volume, whatever else is changed", () => {
    expect(sidOf({})).toMatch(/^S-1-5-21-\d{1,10}-\d{1,10}-\d{1,10}$/);
    expect(sidOf({ guest: true, users: [], addresses: ["10.0.0.7"] })).toBe(sidOf({}));
    expect(sidOf({ name: "beta" })).not.toBe(sidOf({}));
    expect(sidOf({ passwordFile: "/srv/d2/.dyad/smb/smbpasswd" })).not.toBe(sidOf({}));
  });
});
