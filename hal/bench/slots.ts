/** The beat slots on the coordinator disks, over the sessions of the beat process. */
import type { IscsiDisk } from "../block/iscsi/disk.ts";
import type { DiskSlots } from "../linux/disk-link.ts";

const sectorBytes = 512;

export function slotOn(disk: IscsiDisk): DiskSlots {
  return {
    async read(lba) {
      const read = await disk.read(lba * sectorBytes, sectorBytes);
      return read.ok ? read.value : undefined;
    },
    async write(lba, sector) {
      const written = await disk.write(lba * sectorBytes, Buffer.from(sector), { fua: true });
      if (written.ok) return "good";
      return written.fault.code === "fenced" ? "conflict" : "failed";
    },
  };
}
