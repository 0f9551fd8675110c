/** The beat slots on the coordinator disks, over the sessions of the beat process. */
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { IscsiDisk } from "../block/iscsi/disk.ts";

export type SlotResult = "good" | "conflict" | "failed";

export interface Slot {
  read(lba: number): Promise<Uint8Array | undefined>;
  write(lba: number, data: Uint8Array): Promise<SlotResult>;
}

const blockBytes = 512;

export function slotOn(disk: IscsiDisk): Slot {
  const resultOf = (outcome: Outcome): SlotResult => {
    if (outcome.ok) return "good";
    return outcome.fault.code === "fenced" ? "conflict" : "failed";
  };
  return {
    async read(lba) {
      const read = await disk.read(lba * blockBytes, blockBytes);
      return read.ok ? read.value : undefined;
    },
    write: async (lba, data) =>
      resultOf(await disk.write(lba * blockBytes, Buffer.from(data), { fua: true })),
  };
}
