/**
 * The page cache of one mounted volume: what was written and has not reached the disk yet is lost with the mount, or with the machine.
 * A file is one number: the value of a register, or the length of a log whose records are their own numbers.
 */
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { noPathMs } from "./disk-beats.ts";
import type { Process } from "./process.ts";
import type { IoRefusal, Shelf } from "./shelf.ts";
import type { Timeline } from "./timeline.ts";

/** The kernel writes a dirty page back by itself after this time, if nobody asks sooner. */
const writeBackMs = 150;

interface Page {
  value: number;
  /** Rises with every change; what the disk has is `cleanVersion`. */
  version: number;
  cleanVersion: number;
  /** One write at a time is under way; whoever wants a newer version on the disk waits for the next. */
  busy: boolean;
  readonly waiting: { readonly version: number; readonly settle: Settle<true> }[];
}

const newPage = (value: number): Page => ({
  value,
  version: 0,
  cleanVersion: 0,
  busy: false,
  waiting: [],
});

export interface PagesSetup {
  readonly me: ControllerId;
  readonly disk: string;
  readonly timeline: Timeline;
  readonly shelf: Shelf;
  /** The process that carries commands to the disk, in their order. */
  readonly block: Process;
  readonly send: (arrive: () => void) => void;
  readonly diskMs: () => number;
  /** Disks whose I/O the block service refuses, because they said that they are another's, until they are attached again. */
  readonly fenced: Set<string>;
}

export type Settle<T> = (result: T | "ioError") => void;

export class Pages {
  readonly #setup: PagesSetup;
  readonly #pages = new Map<string, Page>();
  /** The mount is gone: nothing of it is written any more, and nobody waits for it. */
  #dead = false;
  #sealed = false;

  constructor(setup: PagesSetup) {
    this.#setup = setup;
  }

  /** The end: by a seal that wrote everything, or by giving up what was not written. What is on its way to the disk then stays so. */
  drop(how: "sealed" | "abandoned"): void {
    this.#dead = true;
    this.#sealed ||= how === "sealed";
    this.#pages.clear();
  }

  read(name: string, settle: Settle<number>): void {
    const page = this.#pages.get(name);
    if (page) return settle(page.value);
    this.#command(
      () => this.#setup.shelf.readCell(this.#setup.disk, this.#setup.me, name),
      (value) => {
        if (value === "ioError") return settle(value);
        // Written meanwhile: the page is newer than what the disk gave.
        const found = this.#pages.get(name) ?? newPage(value);
        this.#pages.set(name, found);
        settle(found.value);
      },
    );
  }

  write(name: string, value: number): void {
    const page = this.#pages.get(name) ?? newPage(value);
    const wasClean = page.version === page.cleanVersion;
    page.value = value;
    page.version += 1;
    this.#pages.set(name, page);
    if (wasClean) this.#setup.timeline.after(writeBackMs, () => this.sync(name, () => undefined));
  }

  isDirty(name: string): boolean {
    const page = this.#pages.get(name);
    return page !== undefined && page.version !== page.cleanVersion;
  }

  /** Settles when what the file holds now is on the disk. */
  sync(name: string, settle: Settle<true>): void {
    const page = this.#pages.get(name);
    if (this.#dead) return settle("ioError");
    if (!page || page.version === page.cleanVersion) return settle(true);
    page.waiting.push({ version: page.version, settle });
    if (!page.busy) this.#writeOut(name, page);
  }

  #writeOut(name: string, page: Page): void {
    const { shelf, disk, me } = this.#setup;
    let version = page.version;
    page.busy = true;
    this.#command(
      () => {
        // A seal has waited for what was under way: it wrote all this itself.
        if (this.#sealed) return true;
        version = page.version;
        const result = shelf.writeCell(disk, me, name, page.value);
        return result === "good" ? true : result;
      },
      (result) => {
        page.busy = false;
        if (result !== "ioError") page.cleanVersion = Math.max(page.cleanVersion, version);
        const served = page.waiting.filter((each) => each.version <= version);
        const left = page.waiting.filter((each) => each.version > version);
        page.waiting.splice(0, page.waiting.length, ...left);
        for (const { settle } of served) settle(result);
        if (page.waiting.length > 0 && !page.busy) this.#writeOut(name, page);
      },
    );
  }

  /** What a seal or a flush does before it ends; its caller has made sure that the disk takes it. */
  syncAll(): void {
    const { shelf, disk, me, fenced } = this.#setup;
    if (fenced.has(disk)) return;
    for (const [name, page] of this.#pages) {
      if (page.version === page.cleanVersion) continue;
      if (shelf.writeCell(disk, me, name, page.value) === "good") page.cleanVersion = page.version;
    }
  }

  /**
   * One command to the disk. Without a path it waits and is sent again; so is one that was aborted. A refusal is an I/O error, and ends all
   * I/O of the disk: the initiator does not ask twice.
   */
  #command<T>(act: () => T | IoRefusal, settle: Settle<T>): void {
    const { block, send, timeline, shelf, disk, me, fenced } = this.#setup;
    if (this.#dead) return settle("ioError");
    const arrive = () => {
      const slowMs = shelf.slowMs(disk);
      if (slowMs === 0) return this.#ended(act(), act, settle);
      const aborts = shelf.aborts(disk, me);
      timeline.after(slowMs, () =>
        this.#ended(aborts === shelf.aborts(disk, me) ? act() : "failed", act, settle),
      );
    };
    block.give(() => {
      if (this.#dead || fenced.has(disk)) settle("ioError");
      else send(arrive);
    });
  }

  #ended<T>(result: T | IoRefusal, act: () => T | IoRefusal, settle: Settle<T>): void {
    const { block, timeline, diskMs, fenced, disk } = this.#setup;
    if (result === "failed")
      return timeline.after(noPathMs, () => block.give(() => this.#command(act, settle)));
    timeline.after(diskMs(), () =>
      block.give(() => {
        const refused = result === "preempted" || result === "conflict";
        if (refused) fenced.add(disk);
        settle(this.#dead || refused ? "ioError" : result);
      }),
    );
  }
}
