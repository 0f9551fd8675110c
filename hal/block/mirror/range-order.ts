/**
 * The order of operations that overlap: each begins when those that were entered before it and touch the same bytes have left. Reads do
 * not order each other. What touches nothing of the others begins at once.
 */

export interface RangeTicket {
  readonly offset: number;
  readonly end: number;
  readonly writes: boolean;
  readonly begin: () => void;
  /** Earlier ones that have not left. */
  before: number;
  behind: RangeTicket[] | undefined;
}

export class RangeOrder {
  readonly #inside = new Set<RangeTicket>();

  /** Calls `begin` when its turn is there, perhaps in this call. Whoever has begun leaves. */
  enter(offset: number, length: number, writes: boolean, begin: () => void): RangeTicket {
    const end = offset + length;
    const ticket: RangeTicket = { offset, end, writes, begin, before: 0, behind: undefined };
    for (const other of this.#inside) {
      if (!(writes || other.writes) || other.offset >= end || other.end <= offset) continue;
      ticket.before += 1;
      if (other.behind === undefined) other.behind = [ticket];
      else other.behind.push(ticket);
    }
    this.#inside.add(ticket);
    if (ticket.before === 0) begin();
    return ticket;
  }

  leave(ticket: RangeTicket): void {
    if (ticket.before > 0 || !this.#inside.delete(ticket))
      throw new Error(`range order: ${ticket.offset} leaves without having begun`);
    for (const next of ticket.behind ?? []) {
      next.before -= 1;
      if (next.before === 0) next.begin();
    }
  }
}
