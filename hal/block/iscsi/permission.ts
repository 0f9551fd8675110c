/**
 * Whether I/O may go to a disk now. Writes flow only after the owner of the disk has verified the registration of
 * this very session, and stop by themselves when anything casts doubt on it.
 *
 *   closed ──grant──▶ granted ──session lost, reset──▶ held ──grant──▶ granted
 *     ▲                  │  │                           │
 *     ├──────revoke──────┤  └──conflict, preempted──▶ fenced ──grant──▶ granted
 *     └──────revoke──────┴──(from held and fenced too)──┘
 *
 * `closed` and `fenced` refuse at once; `held` lets I/O wait for the next grant, within its deadline.
 */
export type Permission = "closed" | "granted" | "held" | "fenced";

export class PermissionGate {
  #state: Permission = "closed";
  #waiting = new Set<() => void>();

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
    this.#enter("fenced");
    return true;
  }

  /** Resolves with the state as soon as it is not `held`, or at the deadline whatever it is. */
  settled(deadlineMs: number): Promise<Permission> {
    if (this.#state !== "held" || deadlineMs <= 0) return Promise.resolve(this.#state);
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#waiting.delete(end);
        resolve(this.#state);
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
