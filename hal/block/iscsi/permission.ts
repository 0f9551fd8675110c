/**
 * Whether I/O may go to a disk now. Writes flow only after the owner of the disk has verified the registration of
 * this very session, and stop by themselves when anything casts doubt on it.
 *
 *   closed ──grant──▶ granted ──session lost, reset──▶ held ──grant──▶ granted
 *     ▲                  │  │                           │
 *     ├──────revoke──────┤  └──conflict, preempted──▶ fenced ──grant──▶ granted
 *     └──────revoke──────┴──(from held and fenced too)──┘
 *
 * `closed` refuses at once; `held` lets I/O wait for the next grant, within its deadline. `fenced` refuses too, but says so only when
 * somebody has decided about the disk, or after `silentMs`: whoever serves the volume still has an open gate when its disk is taken, and
 * an I/O error would reach clients that need only wait for the new owner (design 0012).
 */
export type Permission = "closed" | "granted" | "held" | "fenced";

export class PermissionGate {
  readonly #silentMs: number;
  #state: Permission = "closed";
  #fencedAtMs = 0;
  #waiting = new Set<() => void>();

  constructor(silentMs: number) {
    this.#silentMs = silentMs;
  }

  get state(): Permission {
    return this.#state;
  }

  grant(): void {
    this.#enter("granted");
  }

  revoke(): void {
    this.#enter("closed");
  }

  /** Doubt: only what was granted has something to wait for. True when the state changed. */
  hold(): boolean {
    if (this.#state !== "granted") return false;
    this.#enter("held");
    return true;
  }

  /** The disk has refused us. True when this is news. */
  fence(): boolean {
    if (this.#state === "fenced" || this.#state === "closed") return false;
    this.#fencedAtMs = performance.now();
    this.#enter("fenced");
    return true;
  }

  /** Resolves when it may be told that the disk has refused us. What was refused stays so, whatever is granted meanwhile. */
  async fenceMayBeTold(deadlineMs: number): Promise<void> {
    const leftMs = this.#fencedAtMs + this.#silentMs - performance.now();
    if (this.#state === "fenced") await this.#change(Math.min(leftMs, deadlineMs));
  }

  /** Resolves with the state as soon as it is not `held`, or at the deadline whatever it is. */
  async settled(deadlineMs: number): Promise<Permission> {
    if (this.#state === "held") await this.#change(deadlineMs);
    return this.#state;
  }

  /** Resolves at the next change of state that ends a wait, or at the deadline. */
  #change(deadlineMs: number): Promise<void> {
    if (deadlineMs <= 0) return Promise.resolve();
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#waiting.delete(end);
        resolve();
      };
      const timer = setTimeout(end, deadlineMs);
      this.#waiting.add(end);
    });
  }

  #enter(state: Permission): void {
    this.#state = state;
    if (state === "held") return;
    for (const end of [...this.#waiting]) end();
  }
}
