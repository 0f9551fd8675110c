/** The live view for a pipe or a log: a line per event, a line of state per second. Pure. */
import type { OperatorEvent } from "../../firmware-ts/schema/status.ts";
import type { ControllerModel, LiveModel } from "./model.ts";

export function plainEvent(event: OperatorEvent): string {
  return `${event.at.slice(11, 23)} ${event.controller} ${event.severity} ${event.code}: ${event.message}`;
}

export function plainStatus(model: LiveModel): string {
  const controllers = (["a", "b"] as const).map(
    (id) => `${id} ${plainController(model.controllers[id])}`,
  );
  const servers = model.servers.map(
    (each) => `${each.name}@${each.answeredBy ?? `silent ${Math.round(each.silentMs ?? 0)} ms`}`,
  );
  const clients = model.clients.map(({ name, state }) => {
    if (!state) return `${name} mounts`;
    const { engines } = state;
    const sum = (pick: (engine: (typeof engines)[number]) => number) =>
      engines.reduce((total, each) => total + pick(each), 0);
    const gap = Math.max(
      ...state.engines.flatMap(({ read, write }) => [read.longestGapMs, write.longestGapMs]),
    );
    return `${name} r ${sum((e) => e.read.operationsPerS)}/s w ${sum((e) => e.write.operationsPerS)}/s gap ${Math.round(gap)} ms lost ${state.lostAckedWrites} stale ${state.staleReads}`;
  });
  const faults = model.faults.length === 0 ? [] : [`broken: ${model.faults.join(", ")}`];
  const seconds = `${(model.elapsedMs / 1000).toFixed(0).padStart(4)} s`;
  return [seconds, ...controllers, ...servers, ...clients, ...faults].join(" | ");
}

function plainController({ status, powered, memory }: ControllerModel): string {
  if (!powered) return "off";
  const held = memory ? ` ${memory.daemonPssMb.toFixed(0)} MB` : "";
  if (!status) return `silent${held}`;
  const links = status.links.map((link) => `${link.name[0]}:${link.colour}`).join(" ");
  return `${status.mode} e${status.epoch} ${links}${held}`;
}
