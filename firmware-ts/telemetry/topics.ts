/**
 * The MQTT topics of a controller and what is published on them; docs/mqtt.md describes them for subscribers.
 *
 *     <prefix>/<pair id>/<controller>/availability     "online" | "offline" (last will)   retained
 *                                    /status           the whole Status                    retained
 *                                    /vserver/<name>   one virtual server                  retained
 *                                    /link/<name>      one heartbeat link                  retained
 *                                    /events           one OperatorEvent each              not retained
 */
import type { Config } from "../schema/config.ts";
import type { Status } from "../schema/status.ts";

export const online = "online";
export const offline = "offline";

/** `<prefix>/<pair id>/<controller>`; none of its parts can hold `/`-free wildcards, see schema/config. */
export function topicBase(config: Config): string {
  const prefix = config.mqtt?.topicPrefix ?? "dyad";
  return `${prefix}/${config.pair.id}/${config.controller.id}`;
}

/** One retained message. */
export interface StateMessage {
  readonly topic: string;
  readonly payload: string;
  /** The payload without ages, uptimes and usage: messages with equal substance need not be sent again at once. */
  readonly substance: string;
}

/** Every retained state topic of a status, but `availability`. */
export function stateMessages(base: string, status: Status): StateMessage[] {
  const message = (topic: string, value: object): StateMessage => ({
    topic: `${base}/${topic}`,
    payload: JSON.stringify(value),
    substance: JSON.stringify(value, (key, inner) =>
      key === "uptimeMs" || key === "silentMs" || key === "usage" ? undefined : inner,
    ),
  });
  return [
    message("status", status),
    ...status.virtualServers.map((server) => message(`vserver/${server.name}`, server)),
    ...status.links.map((link) => message(`link/${link.name}`, link)),
  ];
}
