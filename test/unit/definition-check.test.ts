/** What a definition contradicts in the configuration and in the other definitions, in words that name the key. */
import { describe, expect, test } from "vitest";
import { virtualServerSchema } from "../../firmware-ts/schema/config.ts";
import type { Definition } from "../../firmware-ts/schema/definition.ts";
import { definitionProblems } from "../../firmware-ts/schema/definition-check.ts";

const configuration = { shelf: { coordinators: ["c1", "c2", "c3"] } };

function definition(number: number, server: object, wanted: Definition["wanted"] = "started") {
  const entry = {
    name: `vs${number}`,
    home: "a",
    addresses: [`10.0.0.${100 + number}/24`],
    volumes: [{ disk: `d${number}`, export: `/vs${number}` }],
    ...server,
  };
  return { number, sequence: 0, wanted, server: virtualServerSchema.parse(entry) };
}

const alpha = definition(0, { name: "alpha", addresses: ["10.0.0.1/24", "fd00::1/64"] });
const beta = definition(5, { name: "beta" }, "stopped");

const problems = (server: object, others = [alpha, beta]) =>
  definitionProblems(configuration, others, definition(7, server));

describe("a definition contradicts", () => {
  const cases: [string, object, string[]][] = [
    ["nothing", {}, []],
    ["a name", { name: "beta" }, ["name: name beta is already used by another virtual server"]],
    [
      "an address, of another prefix length",
      { addresses: ["10.0.0.1/16"] },
      ["addresses[0]: address 10.0.0.1 is already used by alpha"],
    ],
    [
      "an address in another spelling",
      { addresses: ["10.0.9.1/24", "FD00:0:0:0::0001/64"] },
      ["addresses[1]: address fd00::1 is already used by alpha"],
    ],
    [
      "an address of its own",
      { addresses: ["fd00::7/64", "fd00:0::7/80"] },
      ["addresses[1]: address fd00::7 is already used by vs7"],
    ],
    [
      "a disk",
      { volumes: [{ disk: "d5", export: "/new" }] },
      ["volumes[0].disk: disk d5 is already used by beta"],
    ],
    [
      "a coordinator disk",
      { volumes: [{ disk: "c2", export: "/new" }] },
      ["volumes[0].disk: disk c2 is already used by shelf.coordinators"],
    ],
    [
      "an export",
      {
        volumes: [
          { disk: "d8", export: "/new" },
          { disk: "d9", export: "/vs0" },
        ],
      },
      ["volumes[1].export: export /vs0 is already used by alpha"],
    ],
    [
      "an id of its own volumes",
      {
        volumes: [
          { id: 2, disk: "d8", export: "/8" },
          { id: 2, disk: "d9", export: "/9" },
        ],
      },
      [
        "volumes[1].id: expected another id, because 2 is that of a volume before it in the same virtual server",
      ],
    ],
    [
      "the network of its addresses",
      { routes: [{ to: "default", via: "10.0.1.1" }] },
      [
        "routes[0]: expected a gateway in the network of one of its addresses, or of a route before it without gateway",
      ],
    ],
    [
      "several things at once",
      { name: "alpha", volumes: [{ disk: "d0", export: "/vs0" }] },
      [
        "name: name alpha is already used by another virtual server",
        "volumes[0].disk: disk d0 is already used by alpha",
        "volumes[0].export: export /vs0 is already used by alpha",
      ],
    ],
  ];
  test.each(cases)("%s", (_, server, expected) => {
    expect(problems(server)).toEqual(expected);
  });

  test.each([
    ["10.0.0.7/24", undefined],
    ["10.0.0.255/16", undefined],
    ["10.0.0.0/31", undefined],
    ["192.0.2.1/32", undefined],
    ["fd00::/64", undefined],
    ["::ffff:1/96", undefined],
    ["0.0.0.1/8", "a host on a network"],
    ["127.0.0.1/8", "a host on a network"],
    ["224.0.0.5/24", "a host on a network"],
    ["255.255.255.255/32", "a host on a network"],
    ["::/64", "a host on a network"],
    ["::1/128", "a host on a network"],
    ["ff02::1/64", "a host on a network"],
    ["fe80::1/64", "further than its link"],
    ["febf::1/64", "further than its link"],
    ["10.0.0.0/24", "not that of the network"],
    ["10.0.0.255/24", "or of its broadcasts"],
  ])("with the address %s: %s", (address, message) => {
    const found = problems({ addresses: [address] });
    expect(found.map((each) => each.replace(/: .*/, ""))).toEqual(message ? ["addresses[0]"] : []);
    if (message) expect(found[0]).toContain(message);
  });

  test("a stopped one, but not a deleted one", () => {
    const gone = definition(5, { name: "beta" }, "deleted");
    const again = { name: "beta", volumes: [{ disk: "d5", export: "/vs5" }] };
    expect(problems(again, [alpha, beta])).toHaveLength(3);
    expect(problems(again, [alpha, gone])).toEqual([]);
  });

  test("not its own former definition", () => {
    expect(definitionProblems(configuration, [alpha, beta], { ...alpha, sequence: 1 })).toEqual([]);
  });

  test("nothing, when it is deleted itself", () => {
    const deleted = definition(7, { name: "beta" }, "deleted");
    expect(definitionProblems(configuration, [alpha, beta], deleted)).toEqual([]);
  });

  test("nothing by what the others contradict among themselves", () => {
    const twin = definition(6, { name: "beta" });
    expect(problems({}, [beta, twin])).toEqual([]);
  });

  test("the number of addresses that all have together", () => {
    const many = (number: number, count: number, wanted: Definition["wanted"] = "started") =>
      definition(
        number,
        { addresses: Array.from({ length: count }, (_, i) => `10.1.${number}.${i + 1}/16`) },
        wanted,
      );
    const full = Array.from({ length: 16 }, (_, i) => many(i, 8));
    const message = "expected at most 128 addresses of all virtual servers";
    expect(definitionProblems(configuration, full, many(20, 1))).toEqual([message]);
    expect(definitionProblems(configuration, full, many(3, 8))).toEqual([]);
    expect(
      definitionProblems(configuration, [...full.slice(1), many(0, 8, "deleted")], many(20, 8)),
    ).toEqual([]);
  });
});

test("a definition may be one too many for the disks that all have together", () => {
  const many = (number: number) => {
    const volumes = Array.from({ length: 8 }, (_, i) => ({
      disk: `m${number}-${i}`,
      export: `/m${number}/${i}`,
    }));
    return definition(number, { volumes });
  };
  const full = Array.from({ length: 32 }, (_, i) => many(i));
  expect(definitionProblems(configuration, full, definition(40, {}))).toEqual([
    "expected at most 256 volumes of all virtual servers",
  ]);
  expect(definitionProblems(configuration, full.slice(1), many(40))).toEqual([]);
});

describe("the id of a volume", () => {
  const ids = (...given: (number | undefined)[]) =>
    definition(0, {
      volumes: given.map((id, i) => ({
        ...(id === undefined ? {} : { id }),
        disk: `x${i}`,
        export: `/x${i}`,
      })),
    }).server.volumes.map(({ id }) => id);
  const none = undefined;

  test.each([
    ["its position, where none is given", [none, none, none], [1, 2, 3]],
    ["the one that is given", [3, 1], [3, 1]],
    ["more than that of any other", [none, 4, none], [5, 4, 6]],
    ["the lowest free one, where there are no more", [1, 8, none, none], [1, 8, 2, 3]],
    ["one of eight", Array(8).fill(none), [1, 2, 3, 4, 5, 6, 7, 8]],
  ])("is %s", (_, given, expected) => {
    expect(ids(...given)).toEqual(expected);
  });

  test("stays when its neighbour goes", () => {
    const { server } = definition(0, {
      volumes: ["p", "q", "r"].map((disk) => ({ disk, export: `/${disk}` })),
    });
    const fewer = virtualServerSchema.parse({
      ...server,
      volumes: [...server.volumes.slice(1), { disk: "s", export: "/s" }],
    });
    expect(fewer.volumes.map(({ id, disk }) => [id, disk])).toEqual([
      [2, "q"],
      [3, "r"],
      [4, "s"],
    ]);
  });
});
