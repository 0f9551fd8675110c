/**
 * Replays a journal: every recorded event goes through the decisions again, and what comes out is compared with what was done. A
 * difference means that the code has changed, or that a decision depended on something that is not an event.
 */
import { controllerStep, newController } from "../core/controller.ts";
import type { ControllerState } from "../core/controller-state.ts";
import type { ControllerEvent } from "../core/events.ts";
import { deriveTiming } from "../core/timing.ts";
import { configSchema } from "../schema/config.ts";
import type { Definition } from "../schema/definition.ts";
import { fileDefinitions } from "../schema/file-definitions.ts";
import { journalLine, readJournalLine } from "./journal.ts";
import { stepBeforeVolume } from "./replay-before-volume.ts";

export interface Replay {
  /** Lives of the process found in the journal. */
  readonly lives: number;
  readonly events: number;
  /** The first differences, as sentences with the line number. */
  readonly differences: readonly string[];
}

/** Differences reported before the rest is only counted out. */
const differencesMax = 20;

interface Line {
  readonly header?: {
    readonly config: unknown;
    readonly configuration: number;
    readonly definitions?: readonly Definition[];
  };
  readonly event?: ControllerEvent;
  readonly effects?: unknown;
}

/** Replays the lines of one journal file, oldest first. A line that is cut short (a crash) ends the life before it. */
export function replayJournal(lines: readonly string[]): Replay {
  let state: ControllerState | undefined;
  let step: typeof stepBeforeVolume = controllerStep;
  let lives = 0;
  let events = 0;
  const differences: string[] = [];
  lines.forEach((text, index) => {
    if (text === "") return;
    const line = parse(text);
    if (line?.header) {
      const config = configSchema.parse(line.header.config);
      const { configuration, definitions = fileDefinitions(config) } = line.header;
      const timing = deriveTiming(config.timing);
      const initial = newController({ config, timing, configuration, definitions });
      const isOld = line.header.definitions === undefined;
      // What beats said then was the fingerprint of the file alone.
      state = isOld ? { ...initial, configuration } : initial;
      step = isOld ? stepBeforeVolume : controllerStep;
      lives += 1;
      return;
    }
    if (!state || !line?.event) {
      state = undefined;
      return;
    }
    events += 1;
    const [next, effects] = step(state, line.event);
    state = next;
    const now = journalLine(effects);
    const then = journalLine(line.effects);
    if (now !== then && differences.length < differencesMax)
      differences.push(`line ${index + 1}, ${line.event.kind}: recorded ${then}, now ${now}`);
  });
  return { lives, events, differences };
}

function parse(text: string): Line | undefined {
  try {
    return readJournalLine(text) as Line;
  } catch {
    return undefined;
  }
}
