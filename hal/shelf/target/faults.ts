/**
 * Faults that can be injected while the shelf runs, each for certain disks, initiators and kinds of command.
 *
 * Glossary, `action` of a fault:
 *   delay      the disk looks at a matching command only after so many milliseconds
 *   error      a matching command ends at once with a status (and sense data), nothing is done
 *   pathLoss   `cut`: the initiator's connections are reset and its logins refused; `blackhole`: its connections stay
 *              up but nothing moves in either direction. Given for one disk, only that disk's commands are concerned:
 *              with `cut` they end in LOGICAL UNIT NOT SUPPORTED, with `blackhole` they are never answered
 *   diskLoss   the disk is gone for everyone the fault matches: `gone` as above with commands in flight aborted,
 *              `hang` never answers
 *
 * Obligations: matching is a pure function of fault and command; the oldest matching fault wins, but a delay does
 * not hide a later fault of another kind.
 */
import { z } from "zod";
import { Opcode } from "../../../firmware-ts/wire/scsi/codes.ts";

export const FAULTS_MAX = 256;
const DELAY_MS_MAX = 600_000;

const byte = z.int().min(0).max(0xff);

export const faultAction = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("delay"), delayMs: z.int().min(1).max(DELAY_MS_MAX) }),
  z.strictObject({
    kind: z.literal("error"),
    /** SCSI status; 2 (CHECK CONDITION) takes the sense fields. */
    status: byte.default(2),
    senseKey: z.int().min(0).max(0xf).default(0x3),
    asc: byte.default(0x11),
    ascq: byte.default(0),
  }),
  z.strictObject({ kind: z.literal("pathLoss"), mode: z.enum(["cut", "blackhole"]) }),
  z.strictObject({ kind: z.literal("diskLoss"), mode: z.enum(["gone", "hang"]) }),
]);
export type FaultAction = z.infer<typeof faultAction>;

export const faultRequest = z
  .strictObject({
    id: z.string().min(1).max(64).optional(),
    /** A disk's serial; all disks when absent. */
    disk: z.string().min(1).max(64).optional(),
    /** An initiator's iSCSI name; all initiators when absent. */
    initiator: z.string().min(1).max(223).optional(),
    isid: z
      .string()
      .regex(/^[0-9a-fA-F]{12}$/, "twelve hexadecimal digits")
      .optional(),
    operations: z.enum(["read", "write", "reservation", "all"]).default("all"),
    action: faultAction,
  })
  .refine(({ action, operations }) => action.kind !== "pathLoss" || operations === "all", {
    message: "a lost path loses all operations",
    path: ["operations"],
  });
export type FaultRequest = z.input<typeof faultRequest>;
export type Fault = z.infer<typeof faultRequest> & { readonly id: string };

export type OperationClass = "read" | "write" | "reservation" | "other";

const classes: ReadonlyMap<number, OperationClass> = new Map<number, OperationClass>([
  ...[Opcode.read6, Opcode.read10, Opcode.read12, Opcode.read16].map(
    (opcode) => [opcode, "read"] as const,
  ),
  ...[Opcode.verify10, Opcode.verify12, Opcode.verify16, Opcode.prefetch10, Opcode.prefetch16].map(
    (opcode) => [opcode, "read"] as const,
  ),
  ...[Opcode.write6, Opcode.write10, Opcode.write12, Opcode.write16].map(
    (opcode) => [opcode, "write"] as const,
  ),
  ...[Opcode.compareAndWrite, Opcode.writeSame10, Opcode.writeSame16, Opcode.unmap].map(
    (opcode) => [opcode, "write"] as const,
  ),
  ...[Opcode.synchronizeCache10, Opcode.synchronizeCache16].map(
    (opcode) => [opcode, "write"] as const,
  ),
  ...[Opcode.persistentReserveIn, Opcode.persistentReserveOut].map(
    (opcode) => [opcode, "reservation"] as const,
  ),
]);

/** The class of a command by its operation code, the first byte of the CDB. */
export const classOf = (cdb: Buffer): OperationClass => classes.get(cdb[0] ?? 0) ?? "other";

/** Who sends what to which disk. */
export interface FaultSubject {
  readonly initiator: string;
  readonly isid: string;
  readonly disk: string;
  readonly operation: OperationClass;
}

const matchesInitiator = (fault: Fault, initiator: string, isid: string): boolean =>
  (fault.initiator === undefined || fault.initiator.toLowerCase() === initiator.toLowerCase()) &&
  (fault.isid === undefined || fault.isid.toLowerCase() === isid.toLowerCase());

/** A loss of path that concerns whole connections, not one disk. */
const isWholePath = (fault: Fault): boolean =>
  fault.action.kind === "pathLoss" && fault.disk === undefined;

/** The faults in force. */
export class Faults {
  readonly #faults = new Map<string, Fault>();
  #next = 1;

  get size(): number {
    return this.#faults.size;
  }

  list(): readonly Fault[] {
    return [...this.#faults.values()];
  }

  /** Puts a fault in force, in place of one with the same id; undefined when there are too many. */
  set(request: z.infer<typeof faultRequest>): Fault | undefined {
    const id = request.id ?? this.#freeId();
    if (!this.#faults.has(id) && this.#faults.size >= FAULTS_MAX) return undefined;
    const fault = { ...request, id };
    this.#faults.set(id, fault);
    return fault;
  }

  /** Lifts one fault, or all; returns those lifted. */
  clear(id?: string): readonly Fault[] {
    const lifted = this.list().filter((fault) => id === undefined || fault.id === id);
    for (const fault of lifted) this.#faults.delete(fault.id);
    return lifted;
  }

  has(id: string): boolean {
    return this.#faults.has(id);
  }

  /** What befalls a command: the delay, and the first fault that decides its fate. */
  forCommand(subject: FaultSubject): { readonly delay?: Fault; readonly fate?: FaultAction } {
    let delay: Fault | undefined;
    for (const fault of this.#faults.values()) {
      if (isWholePath(fault) || !this.#matches(fault, subject)) continue;
      if (fault.action.kind !== "delay") {
        return { fate: fault.action, ...(delay === undefined ? {} : { delay }) };
      }
      delay ??= fault;
    }
    return delay === undefined ? {} : { delay };
  }

  /** Whether this initiator's connections are cut or blackholed as a whole. */
  forPath(initiator: string, isid: string): "cut" | "blackhole" | null {
    for (const fault of this.#faults.values()) {
      if (fault.action.kind !== "pathLoss" || fault.disk !== undefined) continue;
      if (matchesInitiator(fault, initiator, isid)) return fault.action.mode;
    }
    return null;
  }

  #matches(fault: Fault, subject: FaultSubject): boolean {
    return (
      (fault.disk === undefined || fault.disk === subject.disk) &&
      (fault.operations === "all" || fault.operations === subject.operation) &&
      matchesInitiator(fault, subject.initiator, subject.isid)
    );
  }

  #freeId(): string {
    let id: string;
    do {
      id = `fault-${this.#next++}`;
    } while (this.#faults.has(id));
    return id;
  }
}
