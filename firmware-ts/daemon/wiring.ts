/** Picks the drivers of the main process, and starts the beat process. */
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { realTimeFlag } from "../../hal/linux/realtime.ts";
import type { BeatOpening, FromBeat, ToBeat } from "../loop/channel.ts";

export { openCommonVolume } from "../../hal/bench/common-volume.ts";
export { openBenchMachine as openMachine } from "../../hal/bench/machine.ts";
export { openGroups, silenceEarlierLife } from "../../hal/bench/places.ts";
export { type Carriers, openCarriers } from "../../hal/linux/carriers.ts";

/** A beat process that is not ready by then will not be. */
const readyMs = 10_000;

export interface BeatProcess {
  /** Tells it what to open, and waits until its gates are closed. Rejects when it ends, or does not come to that. */
  open(opening: BeatOpening): Promise<void>;
  send(message: ToBeat): void;
}

/** Starts the beat process: it loads, and waits for the word to open. `ended` is called whenever it ends. */
export function startBeatProcess(
  configPath: string,
  receive: (message: FromBeat) => void,
  ended: (reason: string) => void,
): BeatProcess {
  const entry = fileURLToPath(new URL("./beat-main.ts", import.meta.url));
  const child = fork(entry, [configPath], {
    execArgv: [...new Set([...process.execArgv, realTimeFlag])],
    serialization: "advanced",
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  const ready = Promise.withResolvers<void>();
  // Whoever never opens it is told by `ended`.
  ready.promise.catch(() => undefined);
  child.on("exit", (code, signal) => {
    ready.reject(new Error("the beat process ended before it was ready"));
    ended(`${signal ?? code}`);
  });
  child.on("message", (message) => {
    const said = message as FromBeat;
    if (said.kind === "ready") ready.resolve();
    else receive(said);
  });
  const send = (message: ToBeat | BeatOpening) => {
    if (child.connected) child.send(message);
  };
  return {
    async open(opening) {
      const timer = setTimeout(
        () => ready.reject(new Error(`the beat process was not ready in ${readyMs} ms`)),
        readyMs,
      );
      send(opening);
      await ready.promise.finally(() => clearTimeout(timer));
    },
    send,
  };
}
