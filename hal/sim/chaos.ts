/** Everything that can befall a pair, as data: what a property test draws, and what a failing case prints. */
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { strikeWish, type Wish } from "./changes.ts";
import { ids, type Pair } from "./pair.ts";
import { breakVolume, loseAddresses, loseDevice, muteService } from "./served-faults.ts";
import type { RecordTrouble } from "./shelf.ts";
import type { Wire } from "./wires.ts";
import type { WorkName } from "./works.ts";

export type Mishap =
  | Wish
  | { readonly do: "wait"; readonly ms: number }
  /** A number of events: the next mishap strikes between any two of them. */
  | { readonly do: "events"; readonly count: number }
  | {
      readonly do: "freeze" | "thaw";
      readonly who: ControllerId;
      readonly what: "all" | "main" | "beat";
    }
  | { readonly do: "kill" | "crash" | "power" | "start" | "forget"; readonly who: ControllerId }
  | { readonly do: "shutdown"; readonly who: ControllerId }
  | {
      readonly do: "cut";
      readonly link: "serial" | "network";
      readonly to: ControllerId;
      readonly cut: boolean;
    }
  | { readonly do: "loss"; readonly link: "serial" | "network"; readonly part: number }
  | { readonly do: "path"; readonly who: ControllerId; readonly disk: string; readonly up: boolean }
  | { readonly do: "device"; readonly who: ControllerId; readonly disk: string }
  | { readonly do: "break"; readonly who: ControllerId; readonly disk: string }
  | { readonly do: "unaddress"; readonly who: ControllerId; readonly server: string }
  | { readonly do: "disk"; readonly disk: string; readonly alive: boolean }
  /** Every wire cut, or mended; with the disks of one controller, or without. */
  | { readonly do: "split"; readonly on: boolean; readonly blind: ControllerId | "nobody" }
  | {
      readonly do: "spoil";
      readonly link: Wire;
      /** Undefined: both directions. */
      readonly to: ControllerId | undefined;
      readonly what: "loss" | "noise" | "twice" | "straggleMs";
      readonly part: number;
    }
  | { readonly do: "slow"; readonly disk: string; readonly ms: number }
  | { readonly do: "tear"; readonly who: ControllerId; readonly length: number }
  /** The next records that a controller writes to these disks, or its next readings there. */
  | {
      readonly do: "records";
      readonly who: ControllerId;
      readonly disks: readonly string[];
      readonly how: RecordTrouble["how"];
      readonly count: number;
    }
  | { readonly do: "lan"; readonly loss: number; readonly lateMs: number }
  | { readonly do: "nic"; readonly who: ControllerId; readonly up: boolean }
  | { readonly do: "die"; readonly who: ControllerId; readonly server: string }
  | { readonly do: "mute"; readonly who: ControllerId; readonly server: string }
  | {
      readonly do: "fail";
      readonly who: ControllerId;
      readonly op: WorkName;
      readonly count: number;
    }
  | { readonly do: "hang"; readonly who: ControllerId; readonly op: WorkName }
  | { readonly do: "release"; readonly who: ControllerId; readonly op: WorkName }
  | {
      readonly do: "command";
      readonly who: ControllerId;
      readonly kind: "takeover" | "giveback";
      readonly force?: boolean;
    }
  | {
      readonly do: "transfer";
      readonly who: ControllerId;
      readonly server: string;
      readonly force?: boolean;
    };

/** The disks that a mishap names: one that this pair does not have is none. */
function disksOf(pair: Pair, name: string): readonly string[] {
  const all = [...pair.coordinators, ...pair.allDisks];
  return name === "all" ? all : all.filter((serial) => serial === name);
}

export function strike(pair: Pair, mishap: Mishap): void {
  switch (mishap.do) {
    case "wait":
      return pair.run(mishap.ms);
    case "events":
      return pair.runEvents(mishap.count);
    case "freeze":
    case "thaw":
      return pair[mishap.do](mishap.who, mishap.what);
    case "kill":
    case "crash":
    case "power":
    case "start":
    case "forget":
      return pair[mishap.do](mishap.who);
    case "cut":
      return pair.cut(mishap.link, mishap.to, mishap.cut);
    case "loss":
      for (const to of ids) pair.wires.wire(mishap.link, to).loss = mishap.part;
      return;
    case "path":
      for (const disk of disksOf(pair, mishap.disk)) pair.path(mishap.who, disk, mishap.up);
      return;
    case "split":
      return split(pair, mishap.on, mishap.blind);
    case "spoil":
      for (const to of mishap.to ? [mishap.to] : ids)
        pair.wires.wire(mishap.link, to)[mishap.what] = mishap.part;
      return;
    case "slow":
      for (const disk of disksOf(pair, mishap.disk)) pair.shelf.setSlow(disk, mishap.ms);
      return;
    case "tear":
      return pair.tear(mishap.who, mishap.length);
    case "lan":
      pair.lan.loss = mishap.loss;
      pair.lan.announceLateMs = mishap.lateMs;
      return;
    case "disk":
      for (const disk of disksOf(pair, mishap.disk)) pair.shelf.setAlive(disk, mishap.alive);
      return;
    case "device":
      return loseDevice(pair, mishap.who, mishap.disk);
    case "break":
      return breakVolume(pair, mishap.who, mishap.disk);
    case "unaddress":
      return loseAddresses(pair, mishap.who, mishap.server);
    case "mute":
      return muteService(pair, mishap.who, mishap.server);
    case "nic":
      return pair.dataLink(mishap.who, mishap.up);
    case "change":
      return strikeWish(pair, mishap);
    case "records":
      for (const name of mishap.disks)
        for (const disk of disksOf(pair, name))
          pair.shelf.spoilRecords(disk, mishap.who, { how: mishap.how, left: mishap.count });
      return;
    default:
      return befall(pair, mishap);
  }
}

function split(pair: Pair, on: boolean, blind: ControllerId | "nobody"): void {
  for (const to of ids) for (const link of ["serial", "network"] as const) pair.cut(link, to, on);
  if (blind === "nobody") return;
  for (const disk of disksOf(pair, "all")) pair.path(blind, disk, !on);
}

/** What needs a controller that runs. */
function befall(
  pair: Pair,
  mishap: Extract<
    Mishap,
    { do: "die" | "fail" | "hang" | "release" | "command" | "transfer" | "shutdown" }
  >,
): void {
  const controller = pair.controllers[mishap.who];
  if (!controller?.alive) return;
  const force = "force" in mishap && mishap.force === true;
  const request = { dryRun: false, force, reason: force ? "the operator insists" : "" };
  switch (mishap.do) {
    case "shutdown":
      return controller.happen({ kind: "shutdown", reason: "asked to stop" });
    case "die":
      pair.kernels[mishap.who].endService(mishap.server);
      controller.files?.died(mishap.server);
      return controller.happen({
        kind: "serviceExited",
        virtualServer: mishap.server,
        reason: "signal 9",
      });
    case "fail":
      controller.works.trouble.set(mishap.op, { kind: "fail", left: mishap.count });
      return;
    case "hang":
      controller.works.trouble.set(mishap.op, { kind: "hang" });
      return;
    case "release":
      return controller.works.release(mishap.op);
    case "command":
      return controller.command({ kind: mishap.kind, request });
    case "transfer":
      return controller.command({ kind: "transfer", virtualServer: mishap.server, request });
    default:
      throw new Error(`chaos: unknown mishap ${JSON.stringify(mishap)}`);
  }
}

const works: readonly WorkName[] = [
  "attach",
  "detach",
  "flush",
  "mount",
  "seal",
  "abandon",
  "startService",
  "stopService",
  "killService",
  "addAddresses",
  "removeAddresses",
  "define",
  "forget",
];

export { works as workNames };

/** Mends everything and starts whoever is down: from here on service must come back by itself. */
export function mendAll(pair: Pair): void {
  pair.lan.loss = 0;
  pair.lan.announceLateMs = 0;
  for (const who of ids) {
    for (const link of ["serial", "network"] as const) {
      pair.cut(link, who, false);
      Object.assign(pair.wires.wire(link, who), { loss: 0, noise: 0, twice: 0, straggleMs: 0 });
    }
    for (const disk of [...pair.coordinators, ...pair.allDisks]) {
      pair.shelf.setAlive(disk, true);
      pair.shelf.setSlow(disk, 0);
      pair.path(who, disk, true);
      pair.shelf.spoilRecords(disk, who, undefined);
    }
    pair.dataLink(who, true);
    for (const op of works) pair.controllers[who]?.works.release(op);
    pair.thaw(who);
    if (!pair.controllers[who]?.alive) pair.start(who);
  }
}

/** A supervisor: whoever has ended by itself is started again after a while. */
export function supervise(pair: Pair): void {
  for (const who of ids) if (!pair.controllers[who]?.alive) pair.start(who);
}
