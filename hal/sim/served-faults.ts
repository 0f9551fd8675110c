/** What befalls one virtual server on a controller that goes on, and how its monitors notice. */
import { bareAddresses } from "../../firmware-ts/schema/config.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { Pair } from "./pair.ts";

/**
 * From the moment at which a file service falls silent until its monitor says so: two questions, and what is left of the pause before them; and
 * until it says so again (hal/linux/health).
 */
const questionsMs = 2000;
const pauseMs = 500;
export const muteNoticedMs = questionsMs + pauseMs;
const askAgainMs = 1000;

const brokenNoticedMs = 8;

/** Of an address; it is told again as long as it is missing (hal/linux/place/address-watch). */
const lostNoticedMs = 8;
const tellAgainMs = 1000;

/** The block device of an attached disk goes, its disk stays; commands that are on their way to the disk arrive. */
export function loseDevice(pair: Pair, who: ControllerId, serial: string): void {
  const controller = pair.controllers[who];
  const { attached, lost } = pair.kernels[who];
  if (!controller?.alive || !attached.has(serial) || lost.has(serial)) return;
  lost.add(serial);
  controller.files?.refuse(serial);
  controller.happenLater({ kind: "deviceLost", serial, reason: "signal 9" });
}

/** A file service lives on and answers nothing. Its monitor asks it again and again. */
export function muteService(pair: Pair, who: ControllerId, virtualServer: string): void {
  const controller = pair.controllers[who];
  const kernel = pair.kernels[who];
  const silence = controller?.alive ? kernel.muteService(virtualServer) : undefined;
  if (!controller || silence === undefined) return;
  controller.files?.muted(virtualServer);
  const reason = "no answer in 1000 ms (it stands still), 2 times in a row";
  const notice = () => {
    if (!controller.alive || kernel.mute.get(virtualServer) !== silence) return;
    controller.happenLater({ kind: "serviceHung", virtualServer, reason });
    pair.timeline.after(askAgainMs, notice);
  };
  pair.timeline.after(questionsMs + pair.about(pauseMs), notice);
}

/** The file system of a mounted volume takes no writes any more, which its kernel tells within the time of a look (hal/linux/mount-watch). */
export function breakVolume(pair: Pair, who: ControllerId, serial: string): void {
  const controller = pair.controllers[who];
  const { mounted, sealed, broken } = pair.kernels[who];
  if (!controller?.alive || !mounted.has(serial) || sealed.has(serial) || broken.has(serial))
    return;
  broken.add(serial);
  controller.files?.refuse(serial);
  const reason = "it is read-only after an error";
  pair.timeline.after(pair.about(brokenNoticedMs), () => {
    // What is abandoned meanwhile, or fenced, is no fault of the file system.
    if (!controller.alive || !broken.has(serial) || pair.shelf.holder(serial)?.by !== who) return;
    controller.happenLater({ kind: "volumeFailed", serial, reason });
  });
}

/** Somebody takes the addresses of a virtual server from its interface. */
export function loseAddresses(pair: Pair, who: ControllerId, virtualServer: string): void {
  const controller = pair.controllers[who];
  const server = controller?.places.find(virtualServer);
  const kernel = pair.kernels[who];
  const taken = server ? bareAddresses(server).filter((each) => kernel.addresses.has(each)) : [];
  if (!controller?.alive || taken.length === 0) return;
  const loss = kernel.loseAddresses(taken);
  const reason = `${taken.join(", ")} is gone from its interface`;
  const notice = () => {
    if (!controller.alive || !taken.some((address) => kernel.isMissing(address, loss))) return;
    controller.happenLater({ kind: "addressLost", virtualServer, reason });
    pair.timeline.after(tellAgainMs, notice);
  };
  pair.timeline.after(pair.about(lostNoticedMs), notice);
}
