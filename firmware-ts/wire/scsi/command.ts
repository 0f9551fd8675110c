/**
 * The commands of SPC-4 and SBC-3 that this project speaks, as values.
 *
 * Glossary: `lba` logical block address; `dpo`/`fua` cache hints and force unit access (SBC-3 4.15); `protect` the
 * RDPROTECT, WRPROTECT or VRPROTECT field (SBC-3 4.22), zero where no protection information is used; `cdbBytes` the
 * length of the command descriptor block, where one command exists in several.
 *
 * Obligations: addresses are safe integers. A 64-bit address above 2^53 - 1 decodes as 2^53 - 1: no disk is that
 * large, so the value says "beyond the end" either way.
 */

/** Fields common to commands that name a range of logical blocks. */
interface Range {
  readonly lba: number;
  readonly blocks: number;
}

/** Fields common to reading and writing. */
interface Access extends Range {
  readonly protect: number;
  readonly dpo: boolean;
  readonly fua: boolean;
}

/** One command, by name. Each member cites the clause that defines its fields. */
export type Command =
  /** SPC-4 6.47 */
  | { readonly name: "testUnitReady" }
  /** SPC-4 6.39 */
  | {
      readonly name: "requestSense";
      readonly descriptor: boolean;
      readonly allocationBytes: number;
    }
  /** SPC-4 6.6; `page` is null for standard INQUIRY data (EVPD = 0). */
  | { readonly name: "inquiry"; readonly page: number | null; readonly allocationBytes: number }
  /** SPC-4 6.33 */
  | { readonly name: "reportLuns"; readonly select: number; readonly allocationBytes: number }
  /** SPC-4 6.35; `options` selects the form, `opcode` and `action` one command. */
  | {
      readonly name: "reportSupportedOpcodes";
      readonly timeouts: boolean;
      readonly options: number;
      readonly opcode: number;
      readonly action: number;
      readonly allocationBytes: number;
    }
  /** SPC-4 6.13, 6.14; `control` is the PC field (0 current, 1 changeable, 2 default, 3 saved). */
  | {
      readonly name: "modeSense";
      readonly cdbBytes: 6 | 10;
      readonly noBlockDescriptors: boolean;
      readonly longLba: boolean;
      readonly control: number;
      readonly page: number;
      readonly subpage: number;
      readonly allocationBytes: number;
    }
  /** SBC-3 5.25 */
  | {
      readonly name: "startStopUnit";
      readonly immediate: boolean;
      readonly powerCondition: number;
      readonly noFlush: boolean;
      readonly loadEject: boolean;
      readonly start: boolean;
    }
  /** SBC-3 5.15, 5.16 */
  | { readonly name: "readCapacity10" }
  | { readonly name: "readCapacity16"; readonly allocationBytes: number }
  /** SBC-3 5.10 to 5.13, 5.32 to 5.35 */
  | ({ readonly name: "read"; readonly cdbBytes: 6 | 10 | 12 | 16 } & Access)
  | ({ readonly name: "write"; readonly cdbBytes: 6 | 10 | 12 | 16 } & Access)
  /** SBC-3 5.29 to 5.31; `byteCheck` is the BYTCHK field. */
  | ({
      readonly name: "verify";
      readonly cdbBytes: 10 | 12 | 16;
      readonly protect: number;
      readonly dpo: boolean;
      readonly byteCheck: number;
    } & Range)
  /** SBC-3 5.2; `blocks` is the number compared, and as many are written. */
  | ({ readonly name: "compareAndWrite" } & Access)
  /** SBC-3 5.42, 5.43; `noData` is NDOB of the 16-byte form: write zeros, transfer nothing. */
  | ({
      readonly name: "writeSame";
      readonly cdbBytes: 10 | 16;
      readonly protect: number;
      readonly anchor: boolean;
      readonly unmap: boolean;
      readonly noData: boolean;
    } & Range)
  /** SBC-3 5.28 */
  | { readonly name: "unmap"; readonly anchor: boolean; readonly parameterBytes: number }
  /** SBC-3 5.26, 5.27 */
  | ({
      readonly name: "synchronizeCache";
      readonly cdbBytes: 10 | 16;
      readonly immediate: boolean;
    } & Range)
  /** SBC-3 5.8, 5.9 */
  | ({ readonly name: "prefetch"; readonly cdbBytes: 10 | 16; readonly immediate: boolean } & Range)
  /** SPC-4 6.15 */
  | {
      readonly name: "persistentReserveIn";
      readonly action: number;
      readonly allocationBytes: number;
    }
  /** SPC-4 6.16 */
  | {
      readonly name: "persistentReserveOut";
      readonly action: number;
      readonly scope: number;
      readonly type: number;
      readonly parameterBytes: number;
    };

/** Bytes that a command moves: to the device exactly `out`, from it at most `in`. */
export interface Transfer {
  readonly out: number;
  readonly in: number;
}

/** What the command transfers on a disk with blocks of `blockBytes` bytes. */
export const transferOf = (command: Command, blockBytes: number): Transfer => {
  switch (command.name) {
    case "read":
      return { out: 0, in: command.blocks * blockBytes };
    case "write":
      return { out: command.blocks * blockBytes, in: 0 };
    case "compareAndWrite":
      return { out: 2 * command.blocks * blockBytes, in: 0 };
    case "writeSame":
      return { out: command.noData ? 0 : blockBytes, in: 0 };
    case "verify":
      // BYTCHK 01b compares the range with as much data, 11b with one block (SBC-3 5.29).
      if (command.byteCheck === 1) return { out: command.blocks * blockBytes, in: 0 };
      if (command.byteCheck === 3) return { out: command.blocks > 0 ? blockBytes : 0, in: 0 };
      return { out: 0, in: 0 };
    case "unmap":
    case "persistentReserveOut":
      return { out: command.parameterBytes, in: 0 };
    case "readCapacity10":
      return { out: 0, in: 8 };
    case "testUnitReady":
    case "startStopUnit":
    case "synchronizeCache":
    case "prefetch":
      return { out: 0, in: 0 };
    default:
      return { out: 0, in: command.allocationBytes };
  }
};
