/**
 * The service state of a virtual server as the kernel has it (US 7,200,622: mount table, routing table, device file), in lines for whoever looks at the
 * common volume next: shown to people, never acted upon.
 */
import { type RecordedState, recordedMax } from "../../../firmware-ts/schema/definition.ts";
import { explain, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { mountsAt } from "../mount-table.ts";

export interface VolumePlace {
  readonly disk: string;
  /** Where its volume is mounted when the virtual server is served here. */
  readonly path: string;
}

const nothing: RecordedState = { mounts: [], routes: [], devices: [] };

/** Never fails: what cannot be read is said in its place. Nothing mounted means that it is not served here: then all of it is empty. */
export function recordedState(
  volumes: readonly VolumePlace[],
  routes: () => Outcome<readonly string[]>,
): RecordedState {
  const mounted = mountsAt(new Set(volumes.map(({ path }) => path)));
  if (!mounted.ok) return { ...nothing, mounts: bounded([explain(mounted.fault)], "mounts") };
  const found = volumes.flatMap(({ disk, path }) => {
    const entry = mounted.value.get(path);
    return entry ? [{ disk, ...entry }] : [];
  });
  if (found.length === 0) return nothing;
  const listed = routes();
  const mounts = found.map(({ source, path, type, options, superOptions }) => {
    const all = new Set([...options, ...superOptions]);
    return `${source} ${path} ${type} ${[...all].join(",")}`;
  });
  const devices = found.map(({ disk, source, device }) => `${disk} ${source} ${device}`);
  return {
    mounts: bounded(mounts, "mounts"),
    routes: bounded(listed.ok ? listed.value : [explain(listed.fault)], "routes"),
    devices: bounded(devices, "devices"),
  };
}

const bounded = (lines: readonly string[], table: "mounts" | "routes" | "devices") =>
  lines.slice(0, recordedMax[table]).map((line) => line.slice(0, recordedMax.line));
