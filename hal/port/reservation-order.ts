/**
 * The order of the reservation commands of one disk: decisions send several at once, and judge readings as what followed the change that
 * was sent before them. SCSI gives no such order (SAM-5 8.6: simple tasks may be performed in any), and a command that is repeated after a unit
 * attention would fall behind. So a change waits until all that was asked before it is answered, and a reading until all changes before it
 * are; readings do not wait for each other.
 */
import type { ReservationCommand } from "../../firmware-ts/schema/reservation.ts";

interface Place {
  readonly isReading: boolean;
  readonly begin: () => void;
  hasBegun: boolean;
}

const reads = ({ op }: ReservationCommand) => op === "readKeys" || op === "readReservation";

export class ReservationOrder {
  /** Who has begun and not left, then who waits; in the order in which they came. */
  #line: Place[] = [];

  /**
   * Calls `begin` when it is this command's turn, which may be at once. The result must be called when it is answered, or given up: one that has
   * not begun by then never does.
   */
  enter(command: ReservationCommand, begin: () => void): () => void {
    const place: Place = { isReading: reads(command), begin, hasBegun: false };
    this.#line.push(place);
    this.#advance();
    return () => {
      this.#line = this.#line.filter((each) => each !== place);
      this.#advance();
    };
  }

  #advance(): void {
    for (const [index, place] of this.#line.entries()) {
      if (!place.isReading && index > 0) return;
      if (!place.hasBegun) {
        place.hasBegun = true;
        place.begin();
      }
      if (!place.isReading) return;
    }
  }
}
