/**
 * A witness, as a controller of one pair reaches it (docs/design/0040-witness.md). Its records are linearizable, and durable before an answer
 * is given. What it answers is well formed; whether it makes sense is for the asker to judge (core/witness/client).
 *
 * Every call ends within `deadlineMs`, whatever the other side does: then, and after any other failure, a request may have taken effect
 * or may take effect later. It is repeated on the asker's behalf only where its version keeps it from taking effect twice.
 * Faults: `timeout`; `ioError` (not reached, or lost); `refused` (it does not know us, or not under this key); `badInput` (it does
 * not talk like a witness).
 */
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import type {
  WitnessAnswer,
  WitnessList,
  WitnessRequest,
} from "../../firmware-ts/schema/witness.ts";

export interface Witness {
  ask(request: WitnessRequest, deadlineMs: number): Promise<Outcome<WitnessAnswer>>;
  /** Who it is, and all volumes of the pair. */
  list(deadlineMs: number): Promise<Outcome<WitnessList>>;
}
