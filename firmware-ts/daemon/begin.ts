/** The first half of a start: what an earlier life left is silent, the common volume is read, and the beat process has closed every gate. */
import type { CommonVolume } from "../../hal/port/common-volume.ts";
import type { FromBeat } from "../loop/channel.ts";
import { bareAddresses, type Config } from "../schema/config.ts";
import type { Fault } from "../schema/outcome.ts";
import { sharedConfigurationCrc } from "../wire/configuration.ts";
import { readDefinitions, withDefinitions } from "./definitions.ts";
import {
  type BeatProcess,
  openCommonVolume,
  silenceEarlierLife,
  startBeatProcess,
} from "./wiring.ts";

export const stopSignals = ["SIGTERM", "SIGINT"] as const;

/** Before the decisions begin nothing is held, and whoever asks for an end gets it at once. */
export const exitEarly = () => process.exit(0);

export interface BeginHandlers {
  readonly log: (message: string) => void;
  readonly fromBeat: (message: FromBeat) => void;
  readonly beatEnded: (reason: string) => void;
  /** A start that cannot be: ends the process. */
  readonly failed: (fault: Fault) => never;
}

export interface Begun {
  /** With the virtual servers that there are, whatever the file says. */
  readonly config: Config;
  /** The fingerprint of what both controllers must agree on. */
  readonly configuration: number;
  readonly beat: BeatProcess;
  readonly common: CommonVolume;
}

export async function begin(
  configPath: string,
  file: Config,
  { log, fromBeat, beatEnded, failed }: BeginHandlers,
): Promise<Begun> {
  for (const signal of stopSignals) process.on(signal, exitEarly);
  // It loads, and the sessions to the coordinators log in, while what an earlier life left is silenced.
  const beat = startBeatProcess(configPath, fromBeat, beatEnded);
  const common = openCommonVolume(file, { log });
  const silenced = await silenceEarlierLife(file, { log });
  if (!silenced.ok) return failed(silenced.fault);
  const config = withDefinitions(file, await readDefinitions(file, common, log));
  const configuration = sharedConfigurationCrc(config);
  const floating = config.virtualServers.flatMap(bareAddresses);
  await beat.open({ kind: "opening", floating, configuration });
  return { config, configuration, beat, common };
}
