/** `dyad volume dump`: what is on coordinator disks, or images of them, without a daemon (docs/common-volume.md). */
import { open } from "node:fs/promises";
import { virtualServersMax } from "../schema/beat.ts";
import type { VolumeRecord, VolumeView } from "../schema/definition.ts";
import {
  coordinatorBytesMin,
  decodePair,
  frontBytes,
  frontOffsetBytes,
  restBytes,
  restOffsetBytes,
  type SlotIndex,
  type SlotPair,
} from "../wire/common-volume.ts";
import { type DiskContent, resolveVolume } from "../wire/volume-view.ts";
import { CliError, type ExitCode, exitCodes } from "./exit.ts";
import { type CommonOptions, type Io, plain, printJson } from "./io.ts";

/** Prints what these disks say together: give all of a pair's, or it may be that the newest record is on another one. */
export async function dumpVolume(
  io: Io,
  { output }: CommonOptions,
  files: readonly string[],
): Promise<ExitCode> {
  const view = resolveVolume(await Promise.all(files.map(readDisk)), files.length);
  if (!view.ok) throw new CliError(exitCodes.failure, view.fault.code, view.fault.message);
  const { records, ...rest } = view.value;
  if (output === "json") {
    for (const record of records) printJson(io, record);
    printJson(io, rest);
  } else io.out(volumeText(view.value));
  return exitCodes.ok;
}

async function readDisk(path: string): Promise<DiskContent> {
  const refuse = (why: string) => new CliError(exitCodes.failure, "ioError", `${path}: ${why}`);
  const bytes = Buffer.alloc(coordinatorBytesMin);
  try {
    const file = await open(path, "r");
    try {
      const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
      if (bytesRead < bytes.length)
        throw refuse(`too small for the common volume, which needs ${coordinatorBytesMin} bytes`);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw error instanceof CliError ? error : refuse(`cannot be read: ${(error as Error).message}`);
  }
  const pairs = new Map<number, SlotPair>();
  for (let number = 0; number < virtualServersMax; number += 1) {
    const place = { number, pair: undefined };
    pairs.set(number, decodePair(place, [slotIn(bytes, number, 0), slotIn(bytes, number, 1)]));
  }
  return { serial: path, pairs };
}

function slotIn(disk: Buffer, number: number, slot: SlotIndex): Buffer {
  const [front, rest] = [frontOffsetBytes(number, slot), restOffsetBytes(number, slot)];
  return Buffer.concat([
    disk.subarray(front, front + frontBytes),
    disk.subarray(rest, rest + restBytes),
  ]);
}

function volumeText({ records, thin, damaged }: VolumeView): string {
  const lines = records.flatMap((record) =>
    recordLines(record, thin.includes(record.definition.number)),
  );
  if (records.length === 0) lines.push("no records");
  for (const trouble of damaged) lines.push(`trouble: ${trouble}`);
  return `${lines.map(plain).join("\n")}\n`;
}

function recordLines(record: VolumeRecord, isThin: boolean): string[] {
  const { owner, epoch, generation, definition, state } = record;
  const { number, sequence, wanted, server } = definition;
  const scarce = isThin ? "; on fewer than a majority" : "";
  return [
    `${number} ${server.name}: ${wanted}, change ${sequence}, home ${server.home}; written by ${owner} at epoch ${epoch}, generation ${generation}${scarce}`,
    ...server.addresses.map((address) => `    address ${address}`),
    ...server.volumes.map(({ disk, export: path }) => `    volume ${disk} as ${path}`),
    ...state.mounts.map((line) => `    mount ${line}`),
    ...state.routes.map((line) => `    route ${line}`),
    ...state.devices.map((line) => `    device ${line}`),
  ];
}
