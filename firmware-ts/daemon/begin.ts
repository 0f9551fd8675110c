/** The first half of a start: what an earlier life left is silent, the common volume is read, and the beat process has closed every gate. */
import type { CommonVolume } from "../../hal/port/common-volume.ts";
import { newController } from "../core/controller.ts";
import type { ControllerState } from "../core/controller-state.ts";
import type { Timing } from "../core/timing.ts";
import type { FromBeat } from "../loop/channel.ts";
import type { Config } from "../schema/config.ts";
import type { Definition } from "../schema/definition.ts";
import type { Fault } from "../schema/outcome.ts";
import { sharedConfigurationCrc } from "../wire/configuration.ts";
import { readDefinitions } from "./definitions.ts";
import {
  type BeatProcess,
  type Carriers,
  openCarriers,
  openCommonVolume,
  openGroups,
  silenceEarlierLife,
  startBeatProcess,
} from "./wiring.ts";

export const stopSignals = ["SIGTERM", "SIGINT"] as const;

/** Before the decisions begin nothing is held, and whoever asks for an end gets it at once. */
export const exitEarly = () => process.exit(0);

export interface BeginSetup {
  readonly timing: Timing;
  readonly log: (message: string) => void;
  readonly fromBeat: (message: FromBeat) => void;
  readonly beatEnded: (reason: string) => void;
  /** A start that cannot be: ends the process. */
  readonly failed: (fault: Fault) => never;
}

export interface Begun {
  /** For the machine: what programs of virtual servers may take. */
  readonly groups: ReturnType<typeof openGroups>;
  /** What virtual servers there are, whatever the file says. */
  readonly definitions: readonly Definition[];
  /** What their interfaces are made on, which is there before the gate is. */
  readonly carriers: Carriers;
  /** The fingerprint of the part of the file that both controllers must agree on. */
  readonly configuration: number;
  /** Before the first event. */
  readonly initial: ControllerState;
  readonly beat: BeatProcess;
  readonly common: CommonVolume;
}

export async function begin(
  configPath: string,
  config: Config,
  { timing, log, fromBeat, beatEnded, failed }: BeginSetup,
): Promise<Begun> {
  for (const signal of stopSignals) process.on(signal, exitEarly);
  const groups = openGroups(config);
  // It loads, and the sessions to the coordinators log in, while what an earlier life left is silenced.
  const beat = startBeatProcess(configPath, fromBeat, beatEnded);
  const common = openCommonVolume(config, { log });
  const silenced = await silenceEarlierLife(config, groups, { log });
  if (!silenced.ok) return failed(silenced.fault);
  const definitions = await readDefinitions(config, common, log);
  const configuration = sharedConfigurationCrc(config);
  // Before the gate, which is put on what is there; and after the volume is read, which says what is wanted.
  const initial = newController({ config, timing, configuration, definitions });
  const carriers = await openCarriers(config.data.nic, new Set(initial.vlans));
  if (!carriers.ok) return failed(carriers.fault);
  await beat.open({
    kind: "opening",
    floating: initial.gate.known,
    vlans: initial.vlans,
    configuration: initial.configuration,
  });
  return { groups, definitions, carriers: carriers.value, configuration, initial, beat, common };
}
