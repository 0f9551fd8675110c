/** A disk on a medium whose steps the test decides, and nexuses that speak commands to it. */
import { encodeCdb } from "../../firmware-ts/wire/scsi/cdb.ts";
import { SenseKey } from "../../firmware-ts/wire/scsi/codes.ts";
import type { Command } from "../../firmware-ts/wire/scsi/command.ts";
import {
  decodeFullStatus,
  encodeReserveOut,
  type FullStatusEntry,
  type ReservationType,
  ReserveIn,
  ReserveOut,
} from "../../firmware-ts/wire/scsi/reservation.ts";
import type { AptplRecord, AptplStore } from "../../hal/shelf/disk/aptpl.ts";
import { Disk, type Task } from "../../hal/shelf/disk/disk.ts";
import type { Identity } from "../../hal/shelf/disk/identity.ts";
import type { Medium, MediumDone } from "../../hal/shelf/disk/medium.ts";
import { type Nexus, nexusOf } from "../../hal/shelf/disk/nexus.ts";
import type { Reservations } from "../../hal/shelf/disk/reservations.ts";
import type { Result } from "../../hal/shelf/disk/result.ts";

export const BLOCK = 512;
export const BLOCKS = 64;

interface Step {
  readonly apply: () => void;
  readonly done: MediumDone;
  applied: boolean;
}

/** A medium on which every call takes two steps, its effect and its completion, each when the test says so. */
export class SteppedMedium implements Medium {
  readonly sizeBytes = BLOCK * BLOCKS;
  readonly bytes = Buffer.alloc(BLOCK * BLOCKS);
  readonly steps: Step[] = [];
  failing = false;
  /** Called with every change as it takes effect. */
  onChange: (offset: number, data: Buffer) => void = () => {};

  read(offset: number, target: Buffer, done: MediumDone): void {
    this.#push(() => this.bytes.copy(target, 0, offset, offset + target.length), done);
  }

  write(offset: number, data: Buffer, done: MediumDone): void {
    this.#push(() => {
      this.onChange(offset, data);
      data.copy(this.bytes, offset);
    }, done);
  }

  zero(offset: number, bytes: number, done: MediumDone): void {
    this.write(offset, Buffer.alloc(bytes), done);
  }

  flush(done: MediumDone): void {
    this.#push(() => {}, done);
  }

  #push(apply: () => void, done: MediumDone): void {
    this.steps.push({ apply, done, applied: false });
  }

  /** Takes the next step of the chosen call; false when there is none. */
  step(choice = 0): boolean {
    const step = this.steps[choice % Math.max(1, this.steps.length)];
    if (step === undefined) return false;
    if (!step.applied && !this.failing) {
      step.applied = true;
      step.apply();
      return true;
    }
    this.steps.splice(this.steps.indexOf(step), 1);
    step.done(this.failing ? new Error("medium fails") : null);
    return true;
  }

  drain(): void {
    while (this.step());
  }
}

/** A store that the test completes, or that completes at once. */
export class SteppedStore implements AptplStore {
  readonly saved: AptplRecord[] = [];
  readonly waiting: ((error: Error | null) => void)[] = [];
  immediate = true;

  save(record: AptplRecord, done: (error: Error | null) => void): void {
    this.saved.push(record);
    if (this.immediate) done(null);
    else this.waiting.push(done);
  }
}

const identity: Identity = {
  serial: "TEST1",
  vendor: "DYAD",
  product: "TEST",
  revision: "1",
  blockBytes: BLOCK,
  blocks: BLOCKS,
  targetNames: ["iqn.2026-11.test:one", "iqn.2026-11.test:two"],
  writeCache: true,
};

export const newDisk = (
  medium: Medium,
  store: AptplStore = new SteppedStore(),
  reservations?: Reservations,
): Disk =>
  new Disk({
    identity,
    medium,
    store,
    luns: () => [0],
    ...(reservations === undefined ? {} : { reservations }),
  });

/** A command that was sent, and what became of it. */
export interface Sent {
  readonly task: Task;
  wants: number | null;
  ended: number;
  result: Result | null;
}

export interface SendOptions {
  /** Withhold the data until `give`. */
  readonly later?: boolean;
  readonly held?: boolean;
  readonly ordered?: boolean;
}

/** One initiator port at one target port. */
export class Client {
  readonly nexus: Nexus;
  readonly #disk: Disk;

  constructor(disk: Disk, name: string, targetPort = 1) {
    this.#disk = disk;
    this.nexus = nexusOf({ name: `iqn.2026-11.test:${name}`, isid: "400001370000" }, targetPort);
    disk.connect(this.nexus);
    // The first command of a new nexus hears of the power-on.
    this.send({ name: "testUnitReady" });
  }

  send(command: Command, data: Buffer = Buffer.alloc(0), options: SendOptions = {}): Sent {
    let wanted: number | null = null;
    let ended = 0;
    let result: Result | null = null;
    const give = (task: Task, bytes: number) => {
      wanted = bytes;
      if (options.later !== true) this.#disk.supply(task, data);
    };
    const task = this.#disk.submit(
      {
        nexus: this.nexus,
        cdb: encodeCdb(command),
        offeredBytes: data.length,
        ordered: options.ordered ?? false,
      },
      {
        needData: give,
        complete: (_, outcome) => {
          ended += 1;
          result = outcome;
        },
      },
      options.held ?? false,
    );
    return {
      task,
      get wants() {
        return wanted;
      },
      get ended() {
        return ended;
      },
      get result() {
        return result;
      },
    };
  }

  write(lba: number, data: Buffer, options: SendOptions = {}): Sent {
    return this.send(
      {
        name: "write",
        cdbBytes: 10,
        protect: 0,
        dpo: false,
        fua: false,
        lba,
        blocks: data.length / BLOCK,
      },
      data,
      options,
    );
  }

  read(lba: number, blocks = 1, options: SendOptions = {}): Sent {
    return this.send(
      { name: "read", cdbBytes: 10, protect: 0, dpo: false, fua: false, lba, blocks },
      Buffer.alloc(0),
      options,
    );
  }

  compareAndWrite(lba: number, compare: Buffer, write: Buffer): Sent {
    return this.send(
      {
        name: "compareAndWrite",
        protect: 0,
        dpo: false,
        fua: false,
        lba,
        blocks: compare.length / BLOCK,
      },
      Buffer.concat([compare, write]),
    );
  }

  reserveOut(
    action: keyof typeof ReserveOut,
    keys: { readonly key?: bigint; readonly target?: bigint },
    options: {
      readonly type?: number;
      readonly scope?: number;
      readonly aptpl?: boolean;
      readonly allTargetPorts?: boolean;
      readonly specifyInitiatorPorts?: boolean;
      readonly later?: boolean;
      readonly held?: boolean;
    } = {},
  ): Sent {
    const list = encodeReserveOut({
      key: keys.key ?? 0n,
      serviceActionKey: keys.target ?? 0n,
      specifyInitiatorPorts: options.specifyInitiatorPorts ?? false,
      allTargetPorts: options.allTargetPorts ?? false,
      aptpl: options.aptpl ?? false,
    });
    return this.send(
      {
        name: "persistentReserveOut",
        action: ReserveOut[action],
        scope: options.scope ?? 0,
        type: options.type ?? 0,
        parameterBytes: list.length,
      },
      list,
      options,
    );
  }

  register(key: bigint, options: { readonly aptpl?: boolean } = {}): Sent {
    return this.reserveOut("registerAndIgnore", { target: key }, options);
  }

  reserve(key: bigint, type: ReservationType): Sent {
    return this.reserveOut("reserve", { key }, { type });
  }

  /** What READ FULL STATUS shows. */
  fullStatus(): { readonly generation: number; readonly entries: readonly FullStatusEntry[] } {
    const ask = () =>
      this.send({
        name: "persistentReserveIn",
        action: ReserveIn.readFullStatus,
        allocationBytes: 16_384,
      }).result;
    let result = ask();
    while (result?.sense?.key === SenseKey.unitAttention) result = ask();
    const status = decodeFullStatus(result?.data ?? Buffer.alloc(0));
    if (!status.ok) throw new Error(status.problem);
    return status.value;
  }

  /** Unit attention codes that this nexus is owed, in order. */
  attentions(): number[] {
    const codes: number[] = [];
    for (;;) {
      const { result } = this.send({ name: "testUnitReady" });
      if (result?.sense === undefined) return codes;
      codes.push(result.sense.code);
    }
  }
}

/** A block filled with one byte. */
export const block = (fill: number): Buffer => Buffer.alloc(BLOCK, fill);
