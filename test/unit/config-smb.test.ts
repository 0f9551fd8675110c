/** What a virtual server offers by SMB: what an old file says goes on meaning the same, and each mistake is told where it stands. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { offersNfs, offersSmb } from "../../firmware-ts/schema/config.ts";
import { formatConfig, parseConfigText } from "../../firmware-ts/schema/config-text.ts";
import { definitionProblems } from "../../firmware-ts/schema/definition-check.ts";
import { isSame } from "../../firmware-ts/schema/definition-digest.ts";

const example = readFileSync(join(import.meta.dirname, "../../docs/dyad.toml.example"), "utf8");
const share = 'share = "Projects" ';
const before = example.slice(0, example.indexOf("\n[[virtual_servers]]\n") + 1);

/** A file with one virtual server whose text is given. */
const fileOf = (text: string) =>
  `${before}[[virtual_servers]]\nname = "alpha"\nhome = "a"\naddresses = ["10.0.0.100/24"]\n${text}`;

function parsed(text: string) {
  const outcome = parseConfigText(text, "dyad.toml");
  if (!outcome.ok) throw new Error(outcome.fault.message);
  return outcome.value;
}

/** What is wrong, without the file and the line. */
function problemsOf(text: string): string[] {
  const outcome = parseConfigText(text, "dyad.toml");
  if (outcome.ok) throw new Error("expected problems, found a configuration");
  return outcome.problems.map(({ path, message }) => `${path}: ${message}`);
}

const volume = (words: string) => `[[virtual_servers.volumes]]\ndisk = "d1"\n${words}\n`;
const smb = (words: string) => `[virtual_servers.smb]\n${words}\n`;

describe("a volume", () => {
  test("is offered by NFS as ever in a file that knows nothing of SMB", () => {
    const config = parsed(fileOf(volume('export = "/alpha"')));
    expect(config.virtualServers[0]).not.toHaveProperty("smb");
    expect(config.virtualServers[0]?.volumes).toEqual([{ id: 1, disk: "d1", export: "/alpha" }]);
  });

  test.each([
    ["by NFS", 'export = "/alpha"', "", [true, false]],
    ["by SMB", 'share = "Alpha"', smb("guest = true"), [false, true]],
    ["by both", 'export = "/alpha"\nshare = "Alpha"', smb("guest = true"), [true, true]],
  ])("is offered %s", (_, words, settings, offered) => {
    const [server] = parsed(fileOf(volume(words) + settings)).virtualServers;
    expect(server && [offersNfs(server), offersSmb(server)]).toEqual(offered);
  });

  test("that is offered by neither is of no use", () => {
    expect(problemsOf(fileOf(volume("")))).toEqual([
      "virtual_servers[0].volumes[0]: expected export or share, or nobody could reach the volume; found a table",
    ]);
  });
});

test("a definition is judged by the same rules as the file", () => {
  const [server] = parsed(fileOf(volume('share = "Alpha"') + smb("guest = true"))).virtualServers;
  if (!server) throw new Error("one virtual server expected");
  const config = { shelf: { coordinators: ["c1", "c2", "c3"] } };
  const judged = (change: Partial<typeof server>) => {
    const candidate = { number: 3, sequence: 1, wanted: "started" as const };
    return definitionProblems(config, [], { ...candidate, server: { ...server, ...change } });
  };
  expect(judged({})).toEqual([]);
  expect(judged({ smb: undefined })).toEqual([
    "smb: expected guest = true or users, or nobody could use the shares",
  ]);
  expect(judged({ volumes: [{ id: 1, disk: "d1" }] })).toEqual([
    "volumes[0]: expected export or share, or nobody could reach the volume",
    "smb: expected a volume with a share, or there is nothing to set",
  ]);
});

describe("the settings of SMB", () => {
  test("have defaults, and come back from what is in force", () => {
    const config = parsed(example);
    expect(config.virtualServers[1]?.smb).toEqual({
      workgroup: "WORKGROUP",
      guest: false,
      writeThrough: true,
      users: [{ name: "anna", uid: 1001, gid: 100 }],
    });
    expect(parsed(formatConfig(config))).toEqual(config);
    const least = parsed(fileOf(volume('share = "Alpha"') + smb("guest = true")));
    expect(least.virtualServers[0]?.smb).toEqual({
      workgroup: "WORKGROUP",
      guest: true,
      writeThrough: true,
      users: [],
    });
  });

  test("are something that both controllers have to agree on", () => {
    const definitions = (text: string) => parsed(text).virtualServers;
    const other = example.replace("guest = false ", "guest = true ");
    expect(other).not.toBe(example);
    expect(isSame(definitions(other), definitions(example))).toBe(false);
  });

  const anna = '{ name = "anna", uid = 1001 }';
  test.each([
    ["nobody may come", smb(""), /\.smb: expected guest = true or users, or nobody could use/],
    ["there are none", "", /^virtual_servers\[0\]\.smb: expected guest = true or users/],
    ["the workgroup has the server's name", smb('guest = true\nworkgroup = "ALPHA"'), /another/],
    [
      "two users have one name",
      smb(`users = [${anna}, { name = "anna", uid = 7 }]`),
      /^virtual_servers\[0\]\.smb\.users\[1\]\.name: is another user's/,
    ],
    [
      "two users have one number",
      smb(`users = [${anna}, { name = "berta", uid = 1001 }]`),
      /^virtual_servers\[0\]\.smb\.users\[1\]\.uid: is another user's/,
    ],
    ["a user is root", smb('users = [{ name = "root", uid = 1001 }]'), /of whom the system/],
    ["a user has root's number", smb('users = [{ name = "anna", uid = 0 }]'), /from 1 to/],
    [
      "a user has the guests' number",
      smb('users = [{ name = "anna", uid = 65534 }]'),
      /another nu/,
    ],
    ["a user has a colon", smb('users = [{ name = "an:na", uid = 7 }]'), /expected a user name/],
    ["a user has a line of their own", smb('users = [{ name = "a\\nb", uid = 7 }]'), /a user name/],
    ["a workgroup is two lines", smb('guest = true\nworkgroup = "A\\nB"'), /expected a workgroup/],
  ])("are refused when %s", (_, settings, message) => {
    const problems = problemsOf(fileOf(volume('share = "Alpha"') + settings));
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(message);
  });

  test("are refused where nothing is shared", () => {
    expect(problemsOf(fileOf(volume('export = "/alpha"') + smb("guest = true")))).toEqual([
      "virtual_servers[0].smb: expected a volume with a share, or there is nothing to set; found a table",
    ]);
  });
});

describe("a share's name", () => {
  test.each(["Alpha", "a", "0", "a.b-c_d", "secret$", "x".repeat(31)])("may be %s", (name) => {
    const config = parsed(fileOf(volume(`share = "${name}"`) + smb("guest = true")));
    expect(config.virtualServers[0]?.volumes[0]?.share).toBe(name);
  });

  test.each([
    ["", "empty"],
    ["x".repeat(33), "too long"],
    ["a b", "two words"],
    ["a]", "the end of a section"],
    ["%U", "a macro"],
    ["a\\nb", "two lines"],
    [".a", "hidden"],
    ["$", "hidden and nothing else"],
    ["global", "a section of its own"],
    ["Homes", "another"],
    ["IPC$", "every server's"],
  ])("may not be %j: %s", (name) => {
    const problems = problemsOf(fileOf(volume(`share = "${name}"`) + smb("guest = true")));
    expect(problems.join()).toMatch(/volumes\[0\]\.share: expected a share name/);
  });

  test("may be another server's, and not another volume's of its own in any spelling", () => {
    const two = example.replace('share = "Projects" ', 'share = "alpha" ');
    const [head = "", tail = ""] = two.split('export = "/alpha" ');
    expect(tail).not.toBe("");
    const other = `${head}export = "/alpha"\nshare = "Alpha"\n[virtual_servers.smb]\nguest = true #${tail}`;
    expect(parsed(other).virtualServers.map((each) => each.volumes[0]?.share)).toEqual([
      "Alpha",
      "alpha",
    ]);
    const more = example.replace(share, `${share}\n${volume('share = "PROJECTS"')}#`);
    expect(problemsOf(more)).toEqual([
      "virtual_servers[1].volumes[1].share: is another volume's share already",
    ]);
  });
});
