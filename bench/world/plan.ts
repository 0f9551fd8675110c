/** The appliance of the bench: its disks, its virtual servers, and the configuration of each controller. Pure. */
import type { z } from "zod";
import { type Config, configSchema, type LimitsConfig } from "../../firmware-ts/schema/config.ts";
import { type ControllerId, partnerOf } from "../../firmware-ts/schema/ids.ts";
import {
  brokerAddress,
  interconnectAddress,
  type Layout,
  shelfAddress,
  shelfPort,
} from "./layout.ts";
import { machinePaths } from "./machine.ts";

export const shelfTarget = "iqn.2026-11.dyad:shelf";
export const coordinators = ["C0", "C1", "C2"] as const;
/** Room for the common volume (wire/common-volume), and the next power of two. */
export const coordinatorBytes = 4 * 1024 * 1024;

export const mqttUser = "dyad";

export interface PlanPaths {
  readonly keyFile: string;
  readonly passwordFile: string;
  readonly serial: { readonly [id in ControllerId]: string };
  readonly caFile: string;
  readonly shelfControl: string;
}

export function planPaths(layout: Layout): PlanPaths {
  return {
    keyFile: `${layout.baseDir}/pair.key`,
    passwordFile: `${layout.baseDir}/mqtt.password`,
    serial: { a: `${layout.baseDir}/serial-a`, b: `${layout.baseDir}/serial-b` },
    caFile: `${layout.baseDir}/ca.pem`,
    shelfControl: `${layout.baseDir}/shelf.sock`,
  };
}

export function initiatorName(id: ControllerId): string {
  return `iqn.2026-11.dyad:${id}`;
}

/** What a test may want different from the defaults of the product. */
export interface PlanOptions {
  readonly tls?: boolean;
  readonly timing?: z.input<typeof configSchema>["timing"];
  readonly autoGiveback?: boolean;
  /** By the name of the virtual server. */
  readonly limits?: { readonly [name: string]: Partial<LimitsConfig> };
}

/** The configuration of one controller, checked. */
export function configOf(layout: Layout, id: ControllerId, options: PlanOptions = {}): Config {
  const paths = planPaths(layout);
  const machine = machinePaths(layout, id);
  const tls = options.tls ?? false;
  return configSchema.parse({
    version: 1,
    controller: { id, stateDir: machine.stateDir, runDir: machine.runDir },
    pair: { id: 1, keyFile: paths.keyFile },
    ...(options.timing ? { timing: options.timing } : {}),
    links: {
      serial: { path: paths.serial[id] },
      network: { local: interconnectAddress(id), partner: interconnectAddress(partnerOf(id)) },
      disk: true,
    },
    data: { nic: "eth0" },
    shelf: {
      portal: `${shelfAddress}:${shelfPort}`,
      target: shelfTarget,
      initiatorName: initiatorName(id),
      coordinators,
    },
    virtualServers: layout.servers.map((each) => ({
      name: each.name,
      home: each.home,
      addresses: [`${each.address}/24`],
      routes: each.gateway === undefined ? [] : [{ to: "default", via: each.gateway }],
      volumes: [{ disk: each.disk, export: each.export, share: each.share }],
      ...(each.share === undefined ? {} : { smb: { guest: true } }),
      limits: options.limits?.[each.name] ?? {},
    })),
    mqtt: {
      url: tls ? `mqtts://${brokerAddress}:8883` : `mqtt://${brokerAddress}:1883`,
      username: mqttUser,
      passwordFile: paths.passwordFile,
      ...(tls ? { caFile: paths.caFile } : {}),
    },
    api: { socket: machine.socket },
    autoGiveback: options.autoGiveback ?? false,
  } satisfies z.input<typeof configSchema> | { shelf: { coordinators: readonly string[] } });
}
