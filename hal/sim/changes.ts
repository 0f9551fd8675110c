/**
 * Changes of virtual servers, as data: what an operator asks for is drawn before the run, when nobody knows what there will be; what it means is decided
 * when it strikes. Some of them make no sense, and are to be refused.
 */

import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import { isDeleted, serverNamed } from "../../firmware-ts/core/definitions.ts";
import type { Change } from "../../firmware-ts/core/events.ts";
import { writerOf } from "../../firmware-ts/core/volume.ts";
import type { VirtualServerState } from "../../firmware-ts/core/vserver-types.ts";
import {
  defaultLimits,
  type VirtualServerConfig,
  virtualServerSchema,
} from "../../firmware-ts/schema/config.ts";
import { type ControllerId, partnerOf } from "../../firmware-ts/schema/ids.ts";
import type { Pair } from "./pair.ts";
import { noDisk, spareAddress, spareDisk, sparesOfPlans } from "./spares.ts";
import { pick, type Random } from "./timeline.ts";
import type { WorkName } from "./works.ts";

/** What becomes of the lists of a virtual server. The first of each list stays: there is always one. */
export type Edit =
  | { readonly what: "addAddress" | "addDisk"; readonly value: string }
  /** From whoever has it. */
  | { readonly what: "take"; readonly value: string }
  | { readonly what: "dropAddress" | "dropDisk" | "export" | "route" }
  | { readonly what: "home"; readonly value: ControllerId };

export interface Wish {
  readonly do: "change";
  readonly who: ControllerId;
  /** Of what there is then, where it may be written; else whatever it is called, at `who`. */
  readonly atRight: boolean;
  readonly action: Change["action"];
  readonly name: string;
  /** Which of those that there are, as a part of one. */
  readonly which: number;
  readonly edits: readonly Edit[];
  readonly force: boolean;
  /** Made for a definition that has been changed since. */
  readonly isStale: boolean;
  readonly isHandOver?: boolean | undefined;
  /** Asked for at the same moment, and of the same things: the two may contradict each other. */
  readonly also?: Wish | undefined;
  /** Works of this kind hang for so long where it is asked for, from that moment on. */
  readonly hangs?: { readonly op: WorkName; readonly ms: number } | undefined;
}

/** Names of virtual servers that are created, beside those that there are from the start. */
export const newNames = ["iota", "kappa", "lambda"] as const;

function drawEdit(random: Random): Edit {
  const address = () =>
    random() < 0.85 ? spareAddress(Math.floor(random() * sparesOfPlans)) : "10.0.0.100";
  const disk = () =>
    random() < 0.9
      ? spareDisk(Math.floor(random() * sparesOfPlans))
      : pick(random, [noDisk, "d1", "c1"]);
  const what = pick(random, [
    "addAddress",
    "addAddress",
    "dropAddress",
    "addDisk",
    "addDisk",
    "dropDisk",
    "dropDisk",
    "export",
    "route",
    "home",
  ] as const);
  if (what === "addAddress") return { what, value: `${address()}/24` };
  if (what === "addDisk") return { what, value: disk() };
  if (what === "home") return { what, value: pick(random, ["a", "b"] as const) };
  return { what };
}

export function drawWish(random: Random): Wish {
  const wish = drawOne(random);
  const part = random();
  if (part > 0.3) return wish;
  const other = drawOne(random);
  const who = part < 0.1 ? wish.who : partnerOf(wish.who);
  return { ...wish, also: { ...other, edits: wish.edits, who } };
}

function drawOne(random: Random): Wish {
  const action = pick(random, [
    "create",
    "create",
    "modify",
    "modify",
    "modify",
    "modify",
    "start",
    "start",
    "stop",
    "delete",
  ] as const);
  const old = ["alpha", "beta"] as const;
  const fresh = random() < (action === "create" || action === "delete" ? 0.9 : 0.4);
  const edits = [drawEdit(random), ...(random() < 0.3 ? [drawEdit(random)] : [])];
  return {
    do: "change",
    who: pick(random, ["a", "b"] as const),
    atRight: random() < 0.75,
    action,
    name: fresh ? pick(random, newNames) : pick(random, old),
    which: random(),
    edits,
    force: random() < 0.6,
    isStale: random() < 0.1,
  };
}

/** Something is taken from the one that has it, and given to another a moment later: at that moment both may use it. */
export function drawHandOver(random: Random): { readonly take: Wish; readonly give: Wish } {
  const value =
    random() < 0.5 ? `${drawSpare(random, spareAddress)}/24` : drawSpare(random, spareDisk);
  const what = value.includes("/") ? "addAddress" : "addDisk";
  const wish = (edit: Edit): Wish => ({
    ...drawOne(random),
    action: "modify",
    atRight: true,
    edits: [edit],
    isStale: false,
    isHandOver: true,
  });
  const op = pick(random, ["define", "stopService", "seal", "removeAddresses"] as const);
  const hangs = random() < 0.5 ? { op, ms: 20 + 300 * random() } : undefined;
  return { take: { ...wish({ what: "take", value }), hangs }, give: wish({ what, value }) };
}

const drawSpare = (random: Random, spare: (index: number) => string) =>
  spare(Math.floor(random() * sparesOfPlans));

/** What is handed over is something that somebody has beside the first of its kind, if there is such; what was taken is given. */
function handing(pair: Pair, { servers }: ControllerState, wish: Wish): Wish {
  const [edit] = wish.edits;
  if (!wish.isHandOver || !edit || !("value" in edit)) return wish;
  if (edit.what !== "take") {
    const value = pair.inHand ?? edit.value;
    const what = value.includes("/") ? "addAddress" : "addDisk";
    return { ...wish, edits: [{ what, value }] };
  }
  const given = servers
    .filter((each) => !isDeleted(each))
    .flatMap(({ definition: { server } }) => [
      ...server.addresses.slice(1),
      ...server.volumes.slice(1).map(({ disk }) => disk),
    ]);
  pair.inHand = given[Math.floor(wish.which * given.length)] ?? edit.value;
  return { ...wish, edits: [{ what: "take", value: pair.inHand }] };
}

/** The name that is meant: of one that is to be created a free one, of any other one that there is. */
function nameOf({ servers }: ControllerState, wish: Wish): string {
  const { action, name, which, atRight, edits } = wish;
  if (!atRight) return name;
  const [edit] = edits;
  const holder = edit?.what === "take" && servers.find((each) => hasValue(each, edit.value));
  if (holder) return holder.config.name;
  const names = servers.filter((each) => !isDeleted(each)).map(({ config }) => config.name);
  const list = action === "create" ? newNames.filter((each) => !names.includes(each)) : names;
  return list[Math.floor(which * list.length)] ?? name;
}

/** Where it is asked for: who may write it, if that one runs. */
function whereOf(pair: Pair, { who, atRight }: Wish, name: string): ControllerId {
  if (!atRight) return who;
  for (const id of ["a", "b"] as const) {
    const controller = pair.controllers[id];
    const state = controller?.alive ? controller.state : undefined;
    const server = state && serverNamed(state, name);
    if (state && server && writerOf(state, server.index) === id) return id;
  }
  return who;
}

export function strikeWish(pair: Pair, drawn: Wish): void {
  strikeOne(pair, drawn);
  if (drawn.also) strikeOne(pair, drawn.also);
}

function strikeOne(pair: Pair, asked: Wish): void {
  const knows = pair.controllers[asked.who] ?? pair.controllers.a ?? pair.controllers.b;
  if (!knows) return;
  const drawn = handing(pair, knows.state, asked);
  const wish = { ...drawn, name: nameOf(knows.state, drawn) };
  const controller = pair.controllers[whereOf(pair, wish, wish.name)];
  if (!controller?.alive) return;
  if (drawn.hangs) {
    const { op, ms } = drawn.hangs;
    controller.works.trouble.set(op, { kind: "hang" });
    pair.timeline.after(ms, () => controller.works.release(op));
  }
  const held = serverNamed(controller.state, wish.name)?.definition;
  const { action, name, force } = wish;
  const server = serverOf(pair, wish, held?.server);
  const expectedSequence = held && wish.isStale ? held.sequence + 1 : held?.sequence;
  const change: Change = {
    action,
    name,
    ...(server ? { server } : {}),
    ...(action === "create" || expectedSequence === undefined ? {} : { expectedSequence }),
  };
  const request = { dryRun: false, force, reason: force ? "the operator insists" : "" };
  controller.command({ kind: "change", change, request });
}

function serverOf(
  pair: Pair,
  wish: Wish,
  held: VirtualServerConfig | undefined,
): VirtualServerConfig | undefined {
  const { action, edits } = wish;
  if (action !== "create" && action !== "modify") return undefined;
  const given = action === "create" ? newServer(pair, wish) : held;
  const edited =
    given && edits.reduce((server: Given, edit) => withEdit(pair, server, edit), given);
  // What the API would refuse never gets here.
  const parsed = virtualServerSchema.safeParse(edited);
  return parsed.success ? parsed.data : held;
}

type Given = Omit<VirtualServerConfig, "volumes"> & {
  readonly volumes: readonly {
    readonly id?: number;
    readonly disk: string;
    readonly export?: string | undefined;
  }[];
};

/** With a disk and an address of its own, which are as likely as not in use. */
function newServer(pair: Pair, { name, who: home, edits }: Wish): Given {
  const index = (newNames.indexOf(name as (typeof newNames)[number]) + 1) % sparesOfPlans;
  const given = (what: Edit["what"], otherwise: string) => {
    const edit = edits.find((each) => each.what === what);
    const value = edit && "value" in edit ? edit.value : otherwise;
    return isTaken(pair, value) ? otherwise : value;
  };
  const disk = given("addDisk", spareDisk(index));
  return {
    name,
    home,
    addresses: [given("addAddress", `${spareAddress(index)}/24`)],
    routes: [],
    rules: [],
    volumes: [{ disk, export: `/${name}` }],
    limits: defaultLimits,
  };
}

/** Where there are clients, what they use from the start is given to nobody else: their files would be other files. */
function isTaken(pair: Pair, value: string): boolean {
  const initial = [...pair.addresses.map((each) => `${each}/24`), ...pair.dataDisks];
  return pair.clients.length > 0 && initial.includes(value);
}

function withEdit(pair: Pair, server: Given, edit: Edit): Given {
  const { addresses, volumes } = server;
  switch (edit.what) {
    case "addAddress":
      return isTaken(pair, edit.value) || addresses.includes(edit.value)
        ? server
        : { ...server, addresses: [...addresses, edit.value] };
    case "addDisk":
      return isTaken(pair, edit.value) || volumes.some(({ disk }) => disk === edit.value)
        ? server
        : {
            ...server,
            volumes: [...volumes, { disk: edit.value, export: `/${server.name}-${edit.value}` }],
          };
    case "take":
      return withoutValue(server, edit.value);
    case "dropAddress":
      return { ...server, addresses: addresses.slice(0, Math.max(1, addresses.length - 1)) };
    case "dropDisk":
      return { ...server, volumes: volumes.slice(0, Math.max(1, volumes.length - 1)) };
    case "export":
      return {
        ...server,
        volumes: volumes.map((each, i) =>
          i === 0 ? { ...each, export: `${each.export}x`.slice(0, 60) } : each,
        ),
      };
    case "route":
      return {
        ...server,
        routes: server.routes.length > 0 ? [] : [{ to: "default", via: "10.0.0.1" }],
      };
    case "home":
      return { ...server, home: edit.value };
    default:
      throw new Error(`change: unknown edit ${JSON.stringify(edit)}`);
  }
}

function hasValue({ definition }: VirtualServerState, value: string): boolean {
  const { addresses, volumes } = definition.server;
  const isThere = addresses.includes(value) || volumes.some(({ disk }) => disk === value);
  return isThere && definition.wanted !== "deleted";
}

function withoutValue(server: Given, value: string): Given {
  const addresses = server.addresses.filter((each) => each !== value);
  const volumes = server.volumes.filter(({ disk }) => disk !== value);
  return {
    ...server,
    addresses: addresses.length > 0 ? addresses : server.addresses,
    volumes: volumes.length > 0 ? volumes : server.volumes,
  };
}
