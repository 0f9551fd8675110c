/**
 * Links: one light per heartbeat channel. Green: a beat came in time. Yellow: one is overdue. Red: silent for longer than
 * any schedule of the partner explains. A link that the configuration does not have is absent and never counts.
 *
 *      green ──(half the limit)──▶ yellow ──(limit)──▶ red
 *        ▲───────────── a beat ───────┴──────────────────┘
 */
import { type LinkName, linkNames } from "../schema/ids.ts";
import type { LinkColour } from "../schema/status.ts";
import type { Timing } from "./timing.ts";

export interface LinkState {
  readonly present: boolean;
  readonly carrier: boolean;
  readonly lastHeardMs: number | undefined;
  /** Part of the silence since then in which we did not run ourselves. */
  readonly stalledMs: number;
  /** Newest sequence number heard on this link: an older one here is a replay. */
  readonly sequence: number;
}

export type Links = { readonly [name in LinkName]: LinkState };

/** All links silent; those in `present` can become green. */
export function newLinks(present: readonly LinkName[]): Links {
  const link = (name: LinkName): LinkState => ({
    present: present.includes(name),
    carrier: false,
    lastHeardMs: undefined,
    stalledMs: 0,
    sequence: 0,
  });
  return { serial: link("serial"), network: link("network"), disk: link("disk") };
}

/** Silence after which the link is red, ms. */
export function silenceLimitMs(name: LinkName, timing: Timing): number {
  return name === "disk" ? timing.diskSilenceMs : timing.linkSilenceMs;
}

export function linkColour(
  name: LinkName,
  link: LinkState,
  timing: Timing,
  nowMs: number,
): LinkColour {
  if (!link.present) return "absent";
  if (link.lastHeardMs === undefined) return "red";
  const silentMs = nowMs - link.lastHeardMs;
  const limitMs = silenceLimitMs(name, timing);
  if (silentMs >= limitMs) return "red";
  return silentMs >= limitMs / 2 ? "yellow" : "green";
}

export type Colours = { readonly [name in LinkName]: LinkColour };

export function linkColours(links: Links, timing: Timing, nowMs: number): Colours {
  return {
    serial: linkColour("serial", links.serial, timing, nowMs),
    network: linkColour("network", links.network, timing, nowMs),
    disk: linkColour("disk", links.disk, timing, nowMs),
  };
}

/** True when no present link was heard within its limit, whoever is to blame for it. Asked at every tick. */
export function nobodyHeard(links: Links, timing: Timing, nowMs: number): boolean {
  return (
    isSilent("serial", links.serial, timing, nowMs) &&
    isSilent("network", links.network, timing, nowMs) &&
    isSilent("disk", links.disk, timing, nowMs)
  );
}

function isSilent(name: LinkName, link: LinkState, timing: Timing, nowMs: number): boolean {
  const colour = linkColour(name, link, timing, nowMs);
  return colour === "red" || colour === "absent";
}

/** Whether these are the colours of the links now; asked at every tick. */
export function hasColours(colours: Colours, links: Links, timing: Timing, nowMs: number): boolean {
  return (
    colours.serial === linkColour("serial", links.serial, timing, nowMs) &&
    colours.network === linkColour("network", links.network, timing, nowMs) &&
    colours.disk === linkColour("disk", links.disk, timing, nowMs)
  );
}

/** One of the links; asked for every frame. */
export function linkOf(links: Links, name: LinkName): LinkState {
  if (name === "network") return links.network;
  return name === "serial" ? links.serial : links.disk;
}

/** The links with one of them as it is now. */
export function withLink(links: Links, name: LinkName, link: LinkState): Links {
  const { serial, network, disk } = links;
  switch (name) {
    case "serial":
      return { serial: link, network, disk };
    case "network":
      return { serial, network: link, disk };
    case "disk":
      return { serial, network, disk: link };
    default:
      throw new Error(`links: no link ${String(name)}`);
  }
}

/** The same, of the time in which we ran: the only silence that counts as a loss (core/beat-silence). */
export function nobodyHeardWhileRunning(links: Links, timing: Timing, nowMs: number): boolean {
  return linkNames.every((name) => {
    const { present, lastHeardMs, stalledMs } = links[name];
    if (!present || lastHeardMs === undefined) return true;
    return nowMs - lastHeardMs - stalledMs >= silenceLimitMs(name, timing);
  });
}

/** Takes a stall that ends now off every silence; a link that was heard in it or since is excused for no more than it is silent. */
export function excuseStall(links: Links, stallMs: number, nowMs: number): Links {
  const excused = (name: LinkName): LinkState => {
    const link = links[name];
    if (link.lastHeardMs === undefined) return link;
    const stalledMs = Math.min(nowMs - link.lastHeardMs, link.stalledMs + stallMs);
    return { ...link, stalledMs };
  };
  return { serial: excused("serial"), network: excused("network"), disk: excused("disk") };
}
