/** What virtual servers there are, when a controller starts: from the common volume, and from the file what is not there. */
import type { CommonVolume } from "../../hal/port/common-volume.ts";
import type { Config } from "../schema/config.ts";
import type { Definition, VolumeView } from "../schema/definition.ts";
import { mergeDefinitions } from "../schema/definition-merge.ts";
import { explain } from "../schema/outcome.ts";

/** One try; sessions that are not up within it may be in the next. */
const tryMs = 2000;
const pauseMs = 500;

type Log = (message: string) => void;

/**
 * Reads until a majority of the coordinator disks can be read: without it nobody knows what this controller may serve, and by itself it could serve
 * nothing anyway. Told when it has to wait, and when that is over.
 */
export async function readDefinitions(
  file: Config,
  common: CommonVolume,
  log: Log,
): Promise<readonly Definition[]> {
  const view = await readPatiently(common, log);
  for (const trouble of view.damaged) log(`common volume: ${trouble}`);
  const { definitions, warnings } = mergeDefinitions(file, view);
  for (const warning of warnings) log(warning);
  return definitions;
}

async function readPatiently(common: CommonVolume, log: Log): Promise<VolumeView> {
  let told: string | undefined;
  for (;;) {
    const view = await common.read(tryMs);
    if (view.ok) {
      if (told !== undefined) log("the common volume can be read: the start goes on");
      return view.value;
    }
    if (told === undefined) {
      told = explain(view.fault);
      log(`waiting for a majority of the coordinator disks: ${told}`);
    }
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}
