/** The configuration of the two controllers of a world: what its virtual servers are called, and where they are at home. */
import { type Config, configSchema } from "../../firmware-ts/schema/config.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";

/** What of the set-up of a world is said in its configuration. */
export interface ConfigSetup {
  readonly timing?: Partial<Config["timing"]>;
  /** Virtual servers, at home on a and b in turn; two if nothing is said. */
  readonly servers?: number;
  readonly links?: { readonly serial?: boolean };
  readonly autoGiveback?: boolean;
}

const serverNames = [
  "alpha",
  "beta",
  "gamma",
  "delta",
  "epsilon",
  "zeta",
  "eta",
  "theta",
  "iota",
  "kappa",
  "lambda",
  "mu",
];

export function serversOf({ servers }: ConfigSetup) {
  return serverNames.slice(0, servers ?? 2).map((name, index) => ({
    name,
    home: index % 2 === 0 ? "a" : "b",
    address: `10.0.0.${100 + index}`,
    disk: `d${index + 1}`,
  }));
}

/** Configurations that were parsed already; few differ, and they do not change. */
const parsed = new Map<string, Config>();
const parsedMax = 1000;

/** The configuration of one controller, read as that of a real one. */
export function configOf(
  who: ControllerId,
  setup: ConfigSetup,
  coordinators: readonly string[],
): Config {
  const { timing, links, autoGiveback, servers } = setup;
  const text = JSON.stringify([who, timing, links, autoGiveback, servers, coordinators]);
  const known = parsed.get(text);
  if (known) return known;
  const config = configSchema.parse({
    version: 1,
    controller: { id: who },
    pair: { id: 17, keyFile: "/etc/dyad/pair.key" },
    timing: timing ?? {},
    links: {
      ...(links?.serial === false ? {} : { serial: { path: "/dev/ttyS1" } }),
      network: { local: "192.168.254.1", partner: "192.168.254.2" },
      disk: true,
    },
    data: { nic: "eth0" },
    shelf: {
      portal: "10.0.1.1:3260",
      target: "iqn.2026-11.test:shelf",
      initiatorName: `iqn.2026-11.test:${who}`,
      coordinators,
    },
    virtualServers: serversOf(setup).map(({ name, home, address, disk }) => ({
      name,
      home,
      addresses: [`${address}/24`],
      volumes: [{ disk, export: `/${name}` }],
    })),
    autoGiveback: autoGiveback ?? false,
  });
  if (parsed.size < parsedMax) parsed.set(text, config);
  return config;
}
