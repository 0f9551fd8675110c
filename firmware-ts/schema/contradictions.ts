/**
 * What virtual servers contradict in each other and in the coordinator disks: rules that no single key can break. One set of rules for the configuration
 * file and for definitions that are changed while the firmware runs (docs/design/0027-common-volume.md).
 */
import { addressProblem, canonicalAddress, routeProblems } from "./config-routes.ts";
import { offerProblems, type SmbSettings } from "./config-smb.ts";

/** All gates are renewed in one batch, which must not take longer than the gate takes for an interruption: 0.66 ms for so many, 1.7 ms for 192. */
const addressesMax = 128;

/** As many disks as one block service holds and one shelf of this kind shows. */
const volumesOfAllMax = 256;

/** The parts of a virtual server's configuration that can contradict something. */
interface ServerClaims {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly routes: readonly {
    readonly to: string;
    readonly via?: string | undefined;
    readonly table?: number | undefined;
  }[];
  readonly volumes: readonly {
    readonly id: number;
    readonly disk: string;
    readonly export?: string | undefined;
    readonly share?: string | undefined;
  }[];
  readonly smb?: SmbSettings | undefined;
}

/** Where a server contradicts something, in keys of its configuration; no keys: in its presence. */
export interface Contradiction {
  /** Position in the list of servers; -1: what is wrong lies in no single one. */
  readonly server: number;
  readonly path: readonly (string | number)[];
  readonly message: string;
}

/**
 * Everything that is used twice or does not fit together. What is used twice is told of the later one in the list; coordinator disks come before
 * all of them. With `judged`, a position in the list, what lies in one server alone is looked for in that one only.
 */
export function contradictions(
  coordinators: readonly string[],
  servers: readonly ServerClaims[],
  judged?: number,
): readonly Contradiction[] {
  const found: Contradiction[] = [];
  const used = new Map(coordinators.map((disk) => [`disk ${disk}`, "shelf.coordinators"]));
  const claim = (what: string, server: number, path: (string | number)[], by: string) => {
    const other = used.get(what);
    if (other === undefined) used.set(what, by);
    else found.push({ server, path, message: `${what} is already used by ${other}` });
  };
  servers.forEach((server, i) => {
    const { name, addresses, routes, volumes } = server;
    const isJudged = judged === undefined || judged === i;
    claim(`name ${name}`, i, ["name"], "another virtual server");
    addresses.forEach((text, j) => {
      const message = isJudged ? addressProblem(text) : undefined;
      if (message !== undefined) found.push({ server: i, path: ["addresses", j], message });
      claim(`address ${canonicalAddress(text)}`, i, ["addresses", j], name);
    });
    for (const [j, message] of isJudged ? routeProblems(addresses, routes) : [])
      found.push({ server: i, path: ["routes", j], message });
    const ids = volumes.map((each) => each.id);
    volumes.forEach((each, j) => {
      if (ids.indexOf(each.id) < j)
        found.push({ server: i, path: ["volumes", j, "id"], message: idTwice(each.id) });
      claim(`disk ${each.disk}`, i, ["volumes", j, "disk"], name);
      if (each.export !== undefined)
        claim(`export ${each.export}`, i, ["volumes", j, "export"], name);
    });
    for (const [path, message] of isJudged ? offerProblems(server) : [])
      found.push({ server: i, path, message });
  });
  const sum = (count: (server: ServerClaims) => number) =>
    servers.reduce((total, server) => total + count(server), 0);
  const tooMany = (max: number, what: string) =>
    found.push({
      server: -1,
      path: [],
      message: `expected at most ${max} ${what} of all virtual servers`,
    });
  if (sum(({ addresses }) => addresses.length) > addressesMax) tooMany(addressesMax, "addresses");
  if (sum(({ volumes }) => volumes.length) > volumesOfAllMax) tooMany(volumesOfAllMax, "volumes");
  return found;
}

const idTwice = (id: number) =>
  `expected another id, because ${id} is that of a volume before it in the same virtual server`;
