/**
 * Finding a disk behind a target by its serial (VPD page 80h, SPC-4 7.8.10), never by its place among the logical units:
 * the order is the target's business and has changed under initiators before.
 */
import { failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { encodeCdb } from "../../../firmware-ts/wire/scsi/cdb.ts";
import type { Command } from "../../../firmware-ts/wire/scsi/command.ts";
import {
  type BlockLimits,
  decodeBlockLimits,
  decodeProvisioning,
  decodeVpd,
  type Provisioning,
  VpdPage,
} from "../../../firmware-ts/wire/scsi/inquiry.ts";
import { decodeReportLuns } from "../../../firmware-ts/wire/scsi/lun.ts";
import { decodeCapacity16 } from "../../../firmware-ts/wire/scsi/parameters.ts";
import type { IscsiSession } from "./session.ts";
import { judge } from "./verdict.ts";

export interface DiskFacts {
  readonly lun: number;
  readonly blocks: number;
  readonly blockBytes: number;
  /** Largest READ or WRITE, in bytes. */
  readonly maxTransferBytes: number;
  /** Largest UNMAP, in blocks; 0 where UNMAP is not supported. */
  readonly maxUnmapBlocks: number;
  /** WRITE SAME (16) may unmap. */
  readonly writeSameUnmaps: boolean;
  /** Largest WRITE SAME, in blocks. */
  readonly maxWriteSameBlocks: number;
}

/** A power-on, a reset and a change of mode parameters may all be pending; more than these is a device gone mad. */
const attentionsMax = 16;
const reportLunsBytes = 16 * 1024;
/** Without a stated limit, and as the most that one command carries through us. */
const transferBytesMax = 1024 * 1024;

/** Runs a command that only looks. Unit attentions are what a new nexus has to hear out (SAM-5 5.14). */
async function inspect(
  session: IscsiSession,
  lun: number,
  command: Command,
  deadlineMs: number,
): Promise<Outcome<Buffer>> {
  const inBytes = "allocationBytes" in command ? command.allocationBytes : 0;
  for (let attempt = 0; attempt <= attentionsMax; attempt += 1) {
    const request = { lun, cdb: encodeCdb(command), inBytes, deadlineMs };
    const verdict = judge(await session.command(request));
    if (verdict.kind === "good") return good(verdict.data);
    if (verdict.kind === "attention") continue;
    const reason = verdict.kind === "conflict" ? "RESERVATION CONFLICT" : verdict.reason;
    return failed("diskError", command.name, `unit ${lun}: ${reason}`);
  }
  return failed("diskError", command.name, `unit ${lun}: more than ${attentionsMax} attentions`);
}

async function page(session: IscsiSession, lun: number, code: number, deadlineMs: number) {
  const command = { name: "inquiry", page: code, allocationBytes: 255 } as const;
  const answer = await inspect(session, lun, command, deadlineMs);
  if (!answer.ok) return answer;
  const vpd = decodeVpd(answer.value);
  if (!vpd.ok) return failed("diskError", `VPD page ${code.toString(16)}h`, vpd.problem);
  return good(vpd.value.body);
}

async function serialOf(session: IscsiSession, lun: number, deadlineMs: number) {
  const body = await page(session, lun, VpdPage.serial, deadlineMs);
  return body.ok ? body.value.toString("latin1").trim() : undefined;
}

const writeSameDefaultBlocks = 0xffff;

/** Limits as bytes and blocks; a zero in the pages means that the device states none. */
function derive(
  blockBytes: number,
  limits: BlockLimits | undefined,
  provisioning: Provisioning | undefined,
): Omit<DiskFacts, "lun" | "blocks" | "blockBytes"> {
  const transfer = (limits?.transferBlocksMax ?? 0) * blockBytes;
  return {
    maxTransferBytes: Math.min(transfer || transferBytesMax, transferBytesMax),
    maxUnmapBlocks: provisioning?.unmap ? (limits?.unmapBlocksMax ?? 0) : 0,
    // Zeroes by unmapping are zeroes only where unmapped blocks read as such (SBC-3 4.7.3.4, LBPRZ).
    writeSameUnmaps: provisioning?.writeSame16 === true && provisioning.readsZeros,
    maxWriteSameBlocks: limits?.writeSameBlocksMax || writeSameDefaultBlocks,
  };
}

/** The logical unit with this serial; the one that had it last is asked first. */
async function find(
  session: IscsiSession,
  serial: string,
  hint: number | undefined,
  deadlineMs: number,
): Promise<Outcome<number>> {
  if (hint !== undefined && (await serialOf(session, hint, deadlineMs)) === serial)
    return good(hint);
  const command = { name: "reportLuns", select: 0, allocationBytes: reportLunsBytes } as const;
  const answer = await inspect(session, 0, command, deadlineMs);
  if (!answer.ok) return answer;
  const list = decodeReportLuns(answer.value);
  if (!list.ok) return failed("diskError", "REPORT LUNS", list.problem);
  const serials = await Promise.all(
    list.value.luns.map(async (lun) => ({ lun, serial: await serialOf(session, lun, deadlineMs) })),
  );
  const found = serials.filter((one) => one.serial === serial);
  const [first] = found;
  if (first === undefined)
    return failed("diskLost", "find disk", `no unit has the serial ${serial}`);
  if (found.length > 1)
    return failed("diskError", "find disk", `${found.length} units have the serial ${serial}`);
  return good(first.lun);
}

/** Finds the disk and reads what must be known to use it. Leaves no unit attention of the login behind. */
export async function identify(
  session: IscsiSession,
  serial: string,
  hint: number | undefined,
  deadlineMs: number,
): Promise<Outcome<DiskFacts>> {
  const found = await find(session, serial, hint, deadlineMs);
  if (!found.ok) return found;
  const lun = found.value;
  // INQUIRY and REPORT LUNS leave unit attentions pending (SAM-5 5.14), TEST UNIT READY clears them.
  const ready = await inspect(session, lun, { name: "testUnitReady" }, deadlineMs);
  if (!ready.ok && ready.fault.code !== "diskError") return ready;
  const command = { name: "readCapacity16", allocationBytes: 32 } as const;
  const [answer, limitsPage, provisioningPage] = await Promise.all([
    inspect(session, lun, command, deadlineMs),
    page(session, lun, VpdPage.blockLimits, deadlineMs),
    page(session, lun, VpdPage.provisioning, deadlineMs),
  ]);
  if (!answer.ok) return answer;
  const capacity = decodeCapacity16(answer.value);
  if (!capacity.ok) return failed("diskError", "READ CAPACITY (16)", capacity.problem);
  const { blocks, blockBytes } = capacity.value;
  if (blockBytes < 512 || blockBytes > 65_536 || (blockBytes & (blockBytes - 1)) !== 0)
    return failed("diskError", "READ CAPACITY (16)", `blocks of ${blockBytes} bytes`);
  const limits = limitsPage.ok ? decodeBlockLimits(limitsPage.value) : undefined;
  const provisioning = provisioningPage.ok ? decodeProvisioning(provisioningPage.value) : undefined;
  return good({
    lun,
    blocks,
    blockBytes,
    ...derive(
      blockBytes,
      limits?.ok ? limits.value : undefined,
      provisioning?.ok ? provisioning.value : undefined,
    ),
  });
}
