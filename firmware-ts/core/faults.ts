/** What a controller does when something breaks under what it serves: a path, a reservation, a block device, a file service, a cable. */
import { type ControllerState, onServer, ownsServer, type Step, tell } from "./controller-state.ts";
import { goOut } from "./takeover.ts";
import { failuresBeforeMove } from "./transfer.ts";
import { restartService } from "./vserver.ts";
import { stopServer } from "./vserver-stop.ts";
import { disksOf, type VirtualServerState } from "./vserver-types.ts";

export function diskPath(
  state: ControllerState,
  serial: string,
  up: boolean,
  reason: string,
  nowMs: number,
): Step {
  const known = state.pathsDown.includes(serial);
  if (known !== up) return [state, []];
  const pathsDown = up
    ? state.pathsDown.filter((each) => each !== serial)
    : [...state.pathsDown, serial];
  const said = up
    ? tell("info", "disk.pathUp", `the path to disk ${serial} is back`)
    : tell("error", "disk.pathDown", `the path to disk ${serial} is lost: ${reason}`);
  let step: Step = [{ ...state, pathsDown }, [said]];
  for (const { index, phase, config } of up ? [] : state.servers) {
    // What is written back in good order would wait for the path until its limit, and the clients with it.
    if (phase.kind !== "stopping" || phase.hasLetGo || !disksOf(config).includes(serial)) continue;
    step = onServer(step, index, nowMs, (server, context) =>
      stopServer(server, phase.reason, true, context),
    );
  }
  return step;
}

/** A server that stops closes its gate first, or never opened it; but not while it flushes. */
function isClosed({ phase }: VirtualServerState): boolean {
  return phase.kind === "stopping" && phase.step !== "flush";
}

/** A disk says that it is no longer ours: the partner has taken over, or somebody else writes there. Either way we stop. */
export function diskFenced(
  state: ControllerState,
  serial: string,
  reason: string,
  nowMs: number,
): Step {
  // One that is off may name a disk that another one has by now, here as below.
  const server = state.servers.find(
    (each) => ownsServer(each) && disksOf(each.config).includes(serial),
  );
  if (!server || isClosed(server)) return [state, []];
  if (server.claims[serial]?.at !== "owned") return [state, []];
  return goOut(state, nowMs, `disk ${serial} of ${server.config.name} is fenced: ${reason}`);
}

/** Something was made of the device: whoever is about to attach makes it anew. */
function reliesOnDevice({ phase }: VirtualServerState): boolean {
  if (phase.kind === "starting") return phase.step !== "claim" && phase.step !== "attach";
  return phase.kind === "serving" || (phase.kind === "stopping" && !phase.hasLetGo);
}

/**
 * Nothing is read or written by way of a device that is gone, and a file system in use does not take a new one: the virtual server is taken
 * down by force. A start here has to wait as after any failure; a partner serves within a tenth of that, so within a pair it counts as
 * having failed often enough to be offered as soon as it is down (`evacuate`). The neighbours have devices of their own.
 */
export function deviceLost(
  state: ControllerState,
  serial: string,
  reason: string,
  nowMs: number,
): Step {
  const server = state.servers.find(
    (each) => reliesOnDevice(each) && disksOf(each.config).includes(serial),
  );
  if (!server) return [state, []];
  const { name } = server.config;
  const fault = `the block device of disk ${serial} is gone: ${reason}`;
  const said = tell("error", "vserver.deviceLost", `${name}: ${fault}`);
  const failuresMin = state.mode === "paired" ? failuresBeforeMove : 1;
  const failures = (each: VirtualServerState) => Math.max(each.failures + 1, failuresMin);
  return onServer([state, [said]], server.index, nowMs, (each, context) =>
    each.phase.kind === "stopping"
      ? stopServer(each, each.phase.reason, true, context)
      : stopServer({ ...each, failures: failures(each), fault }, "failed", true, context, fault),
  );
}

/**
 * A service that dies is started again in place until its server has failed so often, in whatever way, without a long stretch of service in
 * between. Then the volume is let go, and the server moves; one that is alone starts it anew after its back-off.
 */
export const restartsMax = 3;

/** The service was proved and nobody looks at it again: from its export on, also while its address waits to be opened. */
function reliesOnService({ phase }: VirtualServerState): boolean {
  if (phase.kind === "starting") return phase.step === "open" || phase.step === "verify";
  return phase.kind === "serving";
}

export function serviceExited(
  state: ControllerState,
  name: string,
  reason: string,
  nowMs: number,
): Step {
  const server = state.servers.find((each) => reliesOnService(each) && each.config.name === name);
  if (!server) return [state, []];
  const said = tell("error", "vserver.serviceDied", `${name}: the file service died: ${reason}`);
  const restart = server.failures < restartsMax;
  return onServer([state, [said]], server.index, nowMs, (each, context) =>
    restart
      ? restartService(each, context)
      : stopServer(each, "failed", false, context, `the file service died: ${reason}`),
  );
}

export function carrier(state: ControllerState, up: boolean): Step {
  if (state.dataLinkUp === up) return [state, []];
  const said = up
    ? tell("info", "dataLink.up", "the data link has a carrier")
    : tell("error", "dataLink.down", "the data link has no carrier");
  return [{ ...state, dataLinkUp: up }, [said]];
}
