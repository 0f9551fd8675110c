/** What a controller does when something breaks under what it serves: a path, a reservation, a device, a file system, a file service, a cable. */
import {
  type ControllerState,
  onServer,
  ownsServer,
  pathlessOf,
  type Step,
  tell,
} from "./controller-state.ts";
import { goOut } from "./takeover.ts";
import { failuresBeforeMove } from "./transfer.ts";
import { restartService } from "./vserver.ts";
import { repairAddresses } from "./vserver-repair.ts";
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
  // By force nothing is written any more, whatever is lost.
  return (
    phase.kind === "serving" || (phase.kind === "stopping" && !phase.hasLetGo && !phase.forced)
  );
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
  const fault = `the block device of disk ${serial} is gone: ${reason}`;
  return diskUseless(state, serial, "deviceLost", fault, "", nowMs);
}

/**
 * A file system that does not take writes any more is of no more use than a lost device: what is left of it here can only be read, or not even that, and
 * is abandoned. The partner may have it at once, from what is on the disk: the error may have been this controller's (its memory, its
 * way to the disk), and the kernel mounts a file system that remembers an error. If it was the disk's, it fails there too, and stays where it is
 * (failuresToMove of core/transfer). After a fence this is no fault: the disk says so itself, and the controller goes out.
 */
export function volumeFailed(
  state: ControllerState,
  serial: string,
  reason: string,
  nowMs: number,
): Step {
  const fault = `the file system of disk ${serial} has failed: ${reason}`;
  const advice = "; should it fail on the partner too, it has to be checked with e2fsck";
  return diskUseless(state, serial, "volumeFailed", fault, advice, nowMs);
}

function diskUseless(
  state: ControllerState,
  serial: string,
  code: "deviceLost" | "volumeFailed",
  fault: string,
  advice: string,
  nowMs: number,
): Step {
  const server = state.servers.find(
    (each) => reliesOnDevice(each) && disksOf(each.config).includes(serial),
  );
  if (!server) return [state, []];
  const said = tell("error", `vserver.${code}`, `${server.config.name}: ${fault}${advice}`);
  const failuresMin = state.mode === "paired" ? failuresBeforeMove : 1;
  const failures = (each: VirtualServerState) => Math.max(each.failures + 1, failuresMin);
  return onServer([state, [said]], server.index, nowMs, (each, context) =>
    each.phase.kind === "stopping"
      ? stopServer(each, each.phase.reason, true, context)
      : stopServer({ ...each, failures: failures(each), fault }, "failed", true, context, fault),
  );
}

/** More deaths of a service, or losses of an address, than this without a long stretch of service in between, and it moves. */
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
  const fault = `the file service died: ${reason}`;
  return mendOrMove(state, name, { code: "serviceDied", fault, mend: restartService }, nowMs);
}

/** US 7,200,622: the virtual server failure monitor. One that hangs is killed and started again as if it had died; its clients wait already. */
export function serviceHung(
  state: ControllerState,
  name: string,
  reason: string,
  nowMs: number,
): Step {
  const fault = `the file service does not answer: ${reason}`;
  const server = state.servers.find((each) => reliesOnService(each) && each.config.name === name);
  // It waits for the disk, as whatever is started in its place would.
  if (server && pathlessOf(state, server.config).length > 0) return [state, []];
  return mendOrMove(state, name, { code: "serviceHung", fault, mend: restartService }, nowMs);
}

/**
 * Somebody has taken an address from the interface, or the interface itself. It is put back under a file service that serves; before it serves it
 * is begun again with the addresses.
 */
export function addressLost(
  state: ControllerState,
  name: string,
  reason: string,
  nowMs: number,
): Step {
  const fault = `it is not reached: ${reason}`;
  const mend: Mend = (server, context) =>
    server.phase.kind === "serving"
      ? repairAddresses(server, context)
      : restartService(server, context);
  return mendOrMove(state, name, { code: "addressLost", fault, mend }, nowMs);
}

type Mend = typeof restartService;

/** What can be mended in place is, some times; then it fails, which may move it. */
function mendOrMove(
  state: ControllerState,
  name: string,
  { code, fault, mend }: { readonly code: string; readonly fault: string; readonly mend: Mend },
  nowMs: number,
): Step {
  const server = state.servers.find((each) => reliesOnService(each) && each.config.name === name);
  if (!server) return [state, []];
  const said = tell("error", `vserver.${code}`, `${name}: ${fault}`);
  const isMended = server.failures < restartsMax;
  // Each counts, so that the waits between the attempts grow.
  const failing = (each: VirtualServerState) => ({ ...each, failures: each.failures + 1 });
  return onServer([state, [said]], server.index, nowMs, (each, context) =>
    isMended ? mend(each, context) : stopServer(failing(each), "failed", false, context, fault),
  );
}

export function carrier(state: ControllerState, up: boolean): Step {
  if (state.dataLinkUp === up) return [state, []];
  const said = up
    ? tell("info", "dataLink.up", "the data link has a carrier")
    : tell("error", "dataLink.down", "the data link has no carrier");
  return [{ ...state, dataLinkUp: up }, [said]];
}
