/** What the kernel of one controller keeps, whatever its processes do: gates with leases that expire, mounts, devices, addresses. */
import type { Pages } from "./pages.ts";

/** Why a gate closed. */
export type GateEnd = "closed" | "expired" | "power";

export interface GateWatcher {
  opened(address: string): void;
  ended(address: string, how: GateEnd, atMs: number): void;
  /** An address is on an interface, and the gate does not know it: whoever asks for it is answered. */
  ungated(address: string): void;
}

export class Kernel {
  readonly #gates = new Map<string, number>();
  /** Addresses that the gate rules over. */
  #known: ReadonlySet<string> = new Set();
  readonly mounted = new Set<string>();
  /** Of the mounted: complete on the disk, and shut for writing. */
  readonly sealed = new Set<string>();
  readonly attached = new Set<string>();
  /** Attached, but the device behind gives nothing but errors. */
  readonly lost = new Set<string>();
  /** Mounted, but the file system takes no writes any more. */
  readonly broken = new Set<string>();
  readonly addresses = new Set<string>();
  /** Addresses that somebody took away, and not whoever had put them there; since which loss. */
  readonly #missing = new Map<string, number>();
  #losses = 0;
  readonly services = new Set<string>();
  /** Of the services: alive, and answers nothing any more; since which silence. */
  readonly mute = new Map<string, number>();
  #silences = 0;
  /** Page caches of what is mounted. */
  readonly pages = new Map<string, Pages>();
  readonly #watcher: GateWatcher;
  /** No gate ends before; infinite when none is open. */
  firstEndMs = Number.POSITIVE_INFINITY;
  /** Rises with every change that an invariant could mind. */
  changes = 0;

  constructor(watcher: GateWatcher) {
    this.#watcher = watcher;
  }

  /** Closes what has expired; the kernel does so at the very instant, so this comes before any look at the gates. */
  expire(nowMs: number): void {
    if (nowMs < this.firstEndMs) return;
    this.firstEndMs = Number.POSITIVE_INFINITY;
    for (const [address, untilMs] of this.#gates) {
      if (untilMs > nowMs) {
        this.firstEndMs = Math.min(this.firstEndMs, untilMs);
        continue;
      }
      this.#gates.delete(address);
      this.#watcher.ended(address, "expired", untilMs);
    }
  }

  isOpen(address: string, nowMs: number): boolean {
    return (this.#gates.get(address) ?? 0) > nowMs;
  }

  /** From now on the gate rules over these; what is new is closed, and what goes is closed first. */
  know(addresses: readonly string[], nowMs: number): void {
    const gone = [...this.#known].filter((each) => !addresses.includes(each));
    this.close(gone, nowMs);
    this.#known = new Set(addresses);
    for (const each of gone) if (this.addresses.has(each)) this.#watcher.ungated(each);
  }

  addAddress(address: string): void {
    this.addresses.add(address);
    this.#missing.delete(address);
    if (!this.#known.has(address)) this.#watcher.ungated(address);
  }

  removeAddress(address: string): void {
    this.addresses.delete(address);
    this.#missing.delete(address);
  }

  /** Somebody takes addresses away; value: the number of this loss. */
  loseAddresses(addresses: readonly string[]): number {
    this.#losses += 1;
    for (const address of addresses) {
      this.addresses.delete(address);
      this.#missing.set(address, this.#losses);
    }
    return this.#losses;
  }

  /** An address is missing since that loss. */
  isMissing(address: string, loss: number): boolean {
    return this.#missing.get(address) === loss;
  }

  /** A service falls silent; undefined when there is nothing that could. */
  muteService(name: string): number | undefined {
    if (!this.services.has(name) || this.mute.has(name)) return undefined;
    this.#silences += 1;
    this.mute.set(name, this.#silences);
    return this.#silences;
  }

  /** A service ends, however. */
  endService(name: string): void {
    this.services.delete(name);
    this.mute.delete(name);
  }

  /** Refused when one of the addresses is open already (`gateFailed`), or is not the gate's to open (`badInput`). */
  open(addresses: readonly string[], untilMs: number, nowMs: number): boolean {
    this.expire(nowMs);
    if (addresses.some((address) => !this.#known.has(address))) return false;
    if (addresses.some((address) => this.#gates.has(address))) return false;
    this.changes += 1;
    this.firstEndMs = Math.min(this.firstEndMs, untilMs);
    for (const address of addresses) {
      this.#gates.set(address, untilMs);
      this.#watcher.opened(address);
    }
    return true;
  }

  /** Refused when one of the elements has expired: nothing is renewed then. */
  renew(addresses: readonly string[], untilMs: number, nowMs: number): boolean {
    this.expire(nowMs);
    if (addresses.some((address) => !this.#gates.has(address))) return false;
    this.firstEndMs = Math.min(this.firstEndMs, untilMs);
    for (const address of addresses) this.#gates.set(address, untilMs);
    return true;
  }

  close(addresses: readonly string[], nowMs: number, how: GateEnd = "closed"): void {
    this.expire(nowMs);
    for (const address of addresses)
      if (this.#gates.delete(address)) this.#watcher.ended(address, how, nowMs);
  }

  openGates(): string[] {
    return [...this.#gates.keys()];
  }

  /** Everything that lives in memory is gone at once. */
  losePower(nowMs: number): void {
    this.close(this.openGates(), nowMs, "power");
    this.forgetUse();
  }

  /** Nothing is mounted, attached or served any more; what page caches held is lost. */
  forgetUse(): void {
    const { mounted, sealed, attached, lost, broken, addresses, services, mute } = this;
    for (const used of [mounted, sealed, attached, lost, broken, addresses, services, mute])
      used.clear();
    this.#missing.clear();
    for (const pages of this.pages.values()) pages.drop("abandoned");
    this.pages.clear();
  }
}
