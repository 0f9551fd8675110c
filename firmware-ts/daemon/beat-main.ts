/**
 * The beat process: heartbeats, leases and gates, with real-time priority and a heap of its own, so that neither a busy machine nor
 * the garbage collection of the main loop is mistaken for a death. Started by the main process, with which it lives
 * and dies, and which tells it what to open when it knows.
 */
import { randomInt } from "node:crypto";
import { deriveTiming } from "../core/timing.ts";
import type { BeatOpening, FromBeat, ToBeat } from "../loop/channel.ts";
import { linkNames, partnerOf } from "../schema/ids.ts";
import { explain } from "../schema/outcome.ts";
import { decodeBeat, encodeBeat } from "../wire/heartbeat.ts";
import { hostBeatLoop } from "./beat-host.ts";
import { loadConfig } from "./config.ts";
import { loadPairKey, openBeatMachine } from "./wiring-beat.ts";

const tell = (message: FromBeat) => {
  if (process.connected) process.send?.(message);
};

/** The main process may know late, or never: without it there is nothing to do here. */
function openingWord(): Promise<BeatOpening> {
  return new Promise((resolve) => {
    const leave = () => process.exit(0);
    process.once("disconnect", leave);
    process.once("message", (message) => {
      process.off("disconnect", leave);
      resolve(message as BeatOpening);
    });
  });
}

async function main(configPath: string): Promise<void> {
  // The main process decides about the end of both.
  process.on("SIGTERM", () => undefined);
  process.on("SIGINT", () => undefined);
  const opening = openingWord();
  const loaded = await loadConfig(configPath);
  if (!loaded.ok) throw new Error(`beat: the configuration does not load: ${configPath}`);
  const config = loaded.value;
  const key = loadPairKey(config.pair.keyFile);
  if (!key.ok) throw new Error(explain(key.fault));
  const { floating, vlans, configuration } = await opening;
  const pair = { pairId: config.pair.id, key: key.value };
  const me = config.controller.id;
  const loop = hostBeatLoop({
    me,
    session: randomInt(1, 0xffff_ffff),
    configuration,
    timing: deriveTiming(config.timing),
    links: linkNames.filter((name) => Boolean(config.links[name])),
    coordinators: config.shelf.coordinators,
    encode: (beat) => encodeBeat(beat, pair),
    decode: (frame) => decodeBeat(frame, pair, partnerOf(me)),
    tell,
  });
  const machine = await openBeatMachine(config, { floating, vlans }, loop.handlers);
  if (!machine.ok) throw new Error(explain(machine.fault));
  const realTime = machine.value.realTime();
  if (!realTime.ok) tell({ kind: "log", message: explain(realTime.fault) });
  process.on("message", (message) => loop.command(message as ToBeat));
  process.on("disconnect", () => {
    void loop.lastWords().finally(() => process.exit(0));
  });
  loop.start(machine.value);
  tell({ kind: "ready" });
}

const [configPath] = process.argv.slice(2);
if (configPath === undefined) throw new Error("beat: no configuration given");
await main(configPath);
