/**
 * Changes of virtual servers as an order of the scripts: `change a create iota home=b +10.0.0.150 +s1`, `change a modify alpha +10.0.0.151 -s2 home=b`,
 * `change a stop alpha`; with `dry`, `force`, or `stale` (made for a definition that has been changed since).
 */
import { serverNamed } from "../../firmware-ts/core/definitions.ts";
import type { Change } from "../../firmware-ts/core/events.ts";
import {
  defaultLimits,
  type VirtualServerConfig,
  virtualServerSchema,
} from "../../firmware-ts/schema/config.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { Pair } from "./pair.ts";

const actions = ["create", "modify", "start", "stop", "delete"] as const;

type Volume = Omit<VirtualServerConfig["volumes"][number], "id"> & { readonly id?: number };
type Given = Omit<VirtualServerConfig, "volumes"> & { readonly volumes: readonly Volume[] };

const isAddress = (value: string) => /^[\d.]+$/.test(value);

/** One that is created has what the words give it, and nothing else. */
const empty = (name: string, home: ControllerId): Given => ({
  name,
  home,
  addresses: [],
  routes: [],
  rules: [],
  volumes: [],
  limits: defaultLimits,
});

function edited(server: Given, word: string): Given {
  const { name, addresses, volumes } = server;
  const value = word.slice(1);
  const address = `${value}/24`;
  if (word === "home=a" || word === "home=b")
    return { ...server, home: word === "home=a" ? "a" : "b" };
  if (word.startsWith("vlan=")) return { ...server, vlan: Number(word.slice("vlan=".length)) };
  if (word === "export") {
    const longer = volumes.map((each, i) =>
      i === 0 ? { ...each, export: `${each.export}x` } : each,
    );
    return { ...server, volumes: longer };
  }
  if (word.startsWith("+"))
    return isAddress(value)
      ? { ...server, addresses: [...addresses, address] }
      : {
          ...server,
          volumes: [
            ...volumes,
            { disk: value, export: volumes.length > 0 ? `/${name}-${value}` : `/${name}` },
          ],
        };
  if (word.startsWith("-"))
    return isAddress(value)
      ? { ...server, addresses: addresses.filter((each) => each !== address) }
      : { ...server, volumes: volumes.filter(({ disk }) => disk !== value) };
  throw new Error(`script: a change cannot ${word}`);
}

const flags = ["dry", "force", "stale"];

/** Asks a controller for a change, as its operator would who has just looked at what there is there. */
export function orderChange(pair: Pair, who: ControllerId, words: readonly string[]): void {
  const [word, name, ...rest] = words;
  const action = actions.find((each) => each === word);
  const controller = pair.controllers[who];
  if (!action || name === undefined || !controller)
    throw new Error(`script: cannot change ${words.join(" ")} at ${who}`);
  const has = (flag: string) => rest.includes(flag);
  const held = serverNamed(controller.state, name)?.definition;
  const given: Given = held?.server ?? empty(name, who);
  const server = rest.filter((each) => !flags.includes(each)).reduce(edited, given);
  const change: Change = {
    action,
    name,
    ...(action === "create" || action === "modify"
      ? { server: virtualServerSchema.parse(server) }
      : {}),
    ...(held && action !== "create"
      ? { expectedSequence: held.sequence + (has("stale") ? 1 : 0) }
      : {}),
  };
  const reason = has("force") ? "the operator insists" : "";
  controller.command({
    kind: "change",
    change,
    request: { dryRun: has("dry"), force: has("force"), reason },
  });
}
