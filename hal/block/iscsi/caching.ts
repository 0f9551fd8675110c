/** Whether a disk keeps writes in a volatile cache: WCE of its caching mode page (SBC-3 6.4.6). */
import { decodeModeData } from "../../../firmware-ts/wire/scsi/parameters.ts";
import { insist, type RunCommand } from "./reserve.ts";

const cachingPage = 0x08;
const inBytes = 255;
/** WCE, in the byte after the page's header. */
const wceMask = 0x04;

/** False only when the disk says so in plain words; whoever does not answer is taken to have a cache. */
export async function hasWriteCache(run: RunCommand, deadlineMs: number): Promise<boolean> {
  const command = {
    ...({ name: "modeSense", cdbBytes: 10, noBlockDescriptors: true, longLba: false } as const),
    ...{ control: 0, page: cachingPage, subpage: 0, allocationBytes: inBytes },
  };
  const verdict = await insist(run, command, { inBytes }, deadlineMs);
  if (verdict.kind !== "good") return true;
  const mode = decodeModeData(verdict.data, 10);
  if (!mode.ok) return true;
  const page = mode.value.pages.find((each) => each.page === cachingPage && each.subpage === 0);
  const flags = page?.body[0];
  return flags === undefined || (flags & wceMask) !== 0;
}
