/**
 * One data disk of a controller: its session at the block service, and the local block device that can be made of it.
 *
 * Obligations: I/O flows only while the disk itself says that our key holds it: verified at attach, and again in every new
 * session before a single write of it is let through. A path that comes back to a disk that is no longer ours is
 * reported as fenced.
 */
import { setTimeout as delay } from "node:timers/promises";
import { done, explain, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
  ReservationKey,
} from "../../firmware-ts/schema/reservation.ts";
import { Attachment, type AttachmentOptions } from "../block/attach.ts";
import type { BlockServiceClient } from "../block/service/client.ts";
import type { DiskSpec, DiskStatus } from "../block/service/protocol.ts";
import type { MachineHandlers } from "../port/machine.ts";
import type { LocalDevice } from "../port/storage.ts";
import type { Hurry } from "./hurry.ts";

const type = "exclusiveAccessRegistrantsOnly";

/** A session that is back within this time was a reconnect, not a lost path. */
const pathGraceMs = 150;

/** How long one look for a disk that is away takes. */
const lookMs = 2000;

const verifyMs = 1000;

/** What is found later than this is of no use: the mount has read it itself. */
const foreseeMs = 500;

export interface DataDiskSetup {
  readonly spec: DiskSpec;
  readonly service: BlockServiceClient;
  /** All that is known of its device before its size. */
  readonly attachment: Pick<AttachmentOptions, "name" | "nbdSocketPath" | "folder" | "starting">;
  readonly hurry: Pick<Hurry, "begin">;
  readonly handlers: Pick<MachineHandlers, "diskPath" | "diskFenced" | "deviceLost" | "log">;
}

export class DataDisk {
  readonly #setup: DataDiskSetup;
  #key: ReservationKey | undefined;
  #attachment: Attachment | undefined;
  #attached = false;
  #up = true;
  #told = false;
  #grace: NodeJS.Timeout | undefined;
  /** A search that goes on after `open`. */
  #search: Promise<void> = Promise.resolve();
  #closing = false;

  constructor(setup: DataDiskSetup) {
    this.#setup = setup;
  }

  get serial(): string {
    return this.#setup.spec.serial;
  }

  get spec(): DiskSpec {
    return this.#setup.spec;
  }

  /** Whether `close` was called; then it is of no use any more. */
  get isClosing(): boolean {
    return this.#closing;
  }

  /**
   * Opens it and prepares its device, so that a takeover finds everything but the device itself. A disk that is not there within `waitMs` is
   * reported as lost, and looked for in the background until it is there. Never rejects.
   */
  async open(waitMs: number): Promise<void> {
    const { handlers } = this.#setup;
    const found = await this.#look(waitMs);
    if (this.#closing) return;
    if (found) {
      // Whoever has it anew must not go by what was said of it before.
      handlers.diskPath(this.serial, true, "found");
      return await this.#prepare(found);
    }
    this.#told = true;
    handlers.diskPath(this.serial, false, "not found");
    this.#search = this.#keepLooking();
  }

  async #keepLooking(): Promise<void> {
    while (!this.#closing) {
      const fromMs = performance.now();
      const found = await this.#look(lookMs);
      if (this.#closing) return;
      if (found) {
        this.#told = false;
        this.#setup.handlers.diskPath(this.serial, true, "found");
        return await this.#prepare(found);
      }
      // A service that refuses at once must not be asked all the time.
      await delay(Math.max(0, fromMs + lookMs - performance.now()), undefined, { ref: false });
    }
  }

  /** The device needs the disk's size; undefined as long as nobody knows it. */
  async #look(waitMs: number): Promise<DiskStatus | undefined> {
    const opened = await this.#setup.service.open(this.#setup.spec, waitMs);
    return opened.ok && opened.value.sizeBytes > 0 ? opened.value : undefined;
  }

  async #prepare({ sizeBytes, blockSizeBytes }: DiskStatus): Promise<void> {
    const { handlers, attachment } = this.#setup;
    this.#attachment = new Attachment({
      ...attachment,
      exportName: this.serial,
      sizeBytes,
      blockSizeBytes,
      onLost: (reason) => {
        if (this.#attached) handlers.deviceLost(this.serial, reason);
        // Nobody uses it, and the next attach makes it anew.
        else handlers.log(`disk ${this.serial}: ${reason}`);
      },
    });
    const prepared = await this.#attachment.prepare();
    if (!prepared.ok) handlers.log(`disk ${this.serial}: ${explain(prepared.fault)}`);
  }

  onPath(up: boolean, reason: string): void {
    const { handlers } = this.#setup;
    this.#up = up;
    clearTimeout(this.#grace);
    if (up) {
      if (this.#attached) void this.#verifyAgain();
      if (this.#told) handlers.diskPath(this.serial, true, reason);
      this.#told = false;
    } else if (!this.#closing) {
      this.#grace = setTimeout(() => {
        this.#told = true;
        handlers.diskPath(this.serial, false, reason);
      }, pathGraceMs);
    }
  }

  onFenced(reason: string): void {
    if (this.#attached) this.#setup.handlers.diskFenced(this.serial, reason);
  }

  async #verifyAgain(): Promise<void> {
    const allowed = await this.#allow();
    if (allowed.ok || !this.#attached || !this.#up) return;
    const { handlers } = this.#setup;
    handlers.log(`disk ${this.serial}: ${explain(allowed.fault)}`);
    if (allowed.fault.code === "fenced") handlers.diskFenced(this.serial, "no longer ours");
  }

  async #allow(): Promise<Outcome<{ readonly writeCache: boolean }>> {
    if (this.#key === undefined)
      return failed("attachFailed", `attach ${this.serial}`, "never claimed");
    return await this.#setup.service.allow(this.serial, { key: this.#key, type }, verifyMs);
  }

  reserve(command: ReservationCommand, deadlineMs: number): Promise<ReservationAnswer> {
    if (command.op === "register") {
      this.#key = command.key;
      this.#hurry();
    }
    // The service lets no more I/O through before it sends a release.
    if (command.op === "release") this.#attached = false;
    return this.#setup.service.reserve(this.serial, command, deadlineMs);
  }

  /** A start begins with a claim: its blocks wait for nobody. */
  #hurry(): void {
    const pids = [this.#setup.service.pid, this.#attachment?.pid];
    this.#setup.hurry.begin(pids.filter((pid) => pid !== undefined));
  }

  async attach(): Promise<Outcome<LocalDevice>> {
    if (!this.#attachment)
      return failed("diskLost", `attach ${this.serial}`, "the disk was never seen since the start");
    const allowed = await this.#allow();
    if (!allowed.ok) return allowed;
    this.#attached = true;
    // While the kernel makes the device, and whoever is to mount it goes on with other things.
    const foreseen = this.#setup.service.foresee(this.serial, foreseeMs);
    const attached = await this.#attachment.attach();
    return attached.ok ? good({ path: attached.value, ...allowed.value, foreseen }) : attached;
  }

  /** Whether the disk says, or does not deny, that it is held under our key. */
  async isOurs(): Promise<boolean> {
    const { service } = this.#setup;
    const answer = await service.reserve(this.serial, { op: "readReservation" }, verifyMs);
    return answer.status !== "reservation" || answer.holder?.key === this.#key;
  }

  refuse(): void {
    this.#attached = false;
    // The answer says when nothing is under way any more; nobody waits for that here.
    void this.#setup.service.forbid(this.serial);
  }

  async detach(): Promise<Outcome> {
    const detached = this.#attachment ? await this.#attachment.detach() : done;
    if (!detached.ok) return detached;
    this.#attached = false;
    return await this.#setup.service.forbid(this.serial);
  }

  /**
   * Removes its device and logs out; may be called again after a fault. `stillMounted`: somebody holds the device, and the disk stays as
   * it was.
   */
  async close(): Promise<Outcome> {
    const wasClosing = this.#closing;
    this.#closing = true;
    const ended = this.#attachment ? await this.#attachment.close() : done;
    if (!ended.ok) {
      this.#closing = wasClosing;
      return ended;
    }
    this.#attached = false;
    this.#attachment = undefined;
    clearTimeout(this.#grace);
    const closed = await this.#setup.service.closeDisk(this.serial);
    await this.#search;
    return closed;
  }
}
