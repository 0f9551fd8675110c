/**
 * Reads the common volume for the main process. Its sessions are kept open: a login takes longer than the reading, and whoever needs the volume (a start,
 * a change that the partner has made, a partner that is back) should not wait for one. That is one session more for each coordinator disk.
 */
import type { Config } from "../../firmware-ts/schema/config.ts";
import type { VolumeView } from "../../firmware-ts/schema/definition.ts";
import { explain, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { type DiskContent, resolveVolume } from "../../firmware-ts/wire/volume-view.ts";
import type { IscsiDisk } from "../block/iscsi/disk.ts";
import { hasRoom, readPairs } from "../block/volume-slots.ts";
import type { CommonVolume } from "../port/common-volume.ts";
import { openCoordinators } from "./coordinators.ts";

const operation = "read the common volume";

/** Opens the sessions in the background. `log` is told once of each disk that has no room for the volume. */
export function openCommonVolume(
  config: Config,
  { log }: { readonly log: (message: string) => void },
): CommonVolume {
  const coordinators = openCoordinators(config, "volume");
  const tooSmall = new Set<string>();

  async function readDisk(
    serial: string,
    disk: IscsiDisk,
    limitMs: number,
  ): Promise<Outcome<DiskContent>> {
    if (!(await disk.whenUp(limitMs)))
      return failed("diskLost", operation, `${serial}: no session`);
    const volume = { device: disk, serial, pair: config.pair.id };
    const room = hasRoom(volume);
    if (!room.ok && !tooSmall.has(serial)) {
      tooSmall.add(serial);
      log(explain(room.fault));
    }
    const pairs = await readPairs(volume);
    return pairs.ok ? { ok: true, value: { serial, pairs: pairs.value } } : pairs;
  }

  return {
    read: (limitMs, isThorough = false) =>
      readMajority(
        [...coordinators.disks].map(([serial, disk]) => readDisk(serial, disk, limitMs)),
        limitMs,
        isThorough,
      ),
    close: () => coordinators.close(),
  };
}

/** Answered as soon as a majority has been read, or can be read no more; thorough: when all have answered, or the time is over. */
function readMajority(
  reading: readonly Promise<Outcome<DiskContent>>[],
  limitMs: number,
  isThorough: boolean,
): Promise<Outcome<VolumeView>> {
  const total = reading.length;
  const majority = Math.floor(total / 2) + 1;
  const read: DiskContent[] = [];
  const troubles: string[] = [];
  const { promise, resolve } = Promise.withResolvers<Outcome<VolumeView>>();
  const end = (outcome: Outcome<VolumeView>) => {
    clearTimeout(timer);
    resolve(outcome);
  };
  const why = () => troubles.join("; ");
  const late = () =>
    failed("timeout", operation, `no majority within ${limitMs} ms`, why() || undefined);
  const timer = setTimeout(
    () => end(read.length >= majority ? resolveVolume(read, total) : late()),
    limitMs,
  );
  for (const each of reading)
    void each.then((content) => {
      if (content.ok) read.push(content.value);
      else troubles.push(explain(content.fault));
      const isEnough = isThorough
        ? read.length + troubles.length === total
        : read.length >= majority;
      if (isEnough && read.length >= majority) end(resolveVolume(read, total));
      else if (total - troubles.length < majority)
        end(failed("diskLost", operation, `no majority of ${total} coordinator disks`, why()));
    });
  return promise;
}
