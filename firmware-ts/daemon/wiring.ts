/** Picks the drivers of the main process, and starts the beat process. */
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { realTimeFlag } from "../../hal/linux/realtime.ts";
import type { FromBeat, ToBeat } from "../loop/channel.ts";

export { openBenchMachine as openMachine } from "../../hal/bench/machine.ts";
export { silenceEarlierLife } from "../../hal/bench/places.ts";

/** A beat process that is not ready by then will not be. */
const readyMs = 10_000;

/** Starts the beat process and waits until its gates are closed; returns the way to speak to it. */
export async function startBeatProcess(
  configPath: string,
  receive: (message: FromBeat) => void,
  ended: (reason: string) => void,
): Promise<(message: ToBeat) => void> {
  const entry = fileURLToPath(new URL("./beat-main.ts", import.meta.url));
  const child = fork(entry, [configPath], {
    execArgv: [...new Set([...process.execArgv, realTimeFlag])],
    serialization: "advanced",
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  child.on("exit", (code, signal) => ended(`${signal ?? code}`));
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`the beat process was not ready in ${readyMs} ms`)),
      readyMs,
    );
    child.once("exit", () => reject(new Error("the beat process ended before it was ready")));
    child.on("message", (message) => {
      const said = message as FromBeat;
      if (said.kind === "ready") {
        clearTimeout(timer);
        resolve();
      } else {
        receive(said);
      }
    });
  });
  return (message) => {
    if (child.connected) child.send(message);
  };
}
