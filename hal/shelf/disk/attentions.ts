/**
 * Unit attentions (SAM-5 5.14): what each I_T nexus has yet to be told, in order, once.
 *
 * Obligations: a nexus is remembered while it is connected or owed something, at most NEXUSES_MAX of them; the
 * oldest absent one is forgotten first, and counts as new when it comes again.
 */
import { Asc } from "../../../firmware-ts/wire/scsi/codes.ts";

export const NEXUSES_MAX = 256;
/** There are fewer distinct codes than this; a bound all the same. */
const CODES_MAX = 16;

interface Owed {
  connected: boolean;
  readonly codes: number[];
}

export class Attentions {
  readonly #owed = new Map<string, Owed>();

  /** A nexus came up: it hears of the power-on when it is new, else of the nexus loss (SPC-4 table D.3, 29h). */
  connect(nexusId: string): void {
    const known = this.#owed.get(nexusId);
    if (known === undefined) {
      this.#makeRoom();
      this.#owed.set(nexusId, { connected: true, codes: [Asc.powerOnOrReset] });
      return;
    }
    known.connected = true;
    this.add(nexusId, Asc.nexusLoss);
  }

  disconnect(nexusId: string): void {
    const known = this.#owed.get(nexusId);
    if (known !== undefined) known.connected = false;
  }

  /** Owes a nexus one code; a repeated code is told once. Nexuses that were never here will hear of a power-on. */
  add(nexusId: string, code: number): void {
    const known = this.#owed.get(nexusId);
    if (known === undefined || known.codes.includes(code)) return;
    if (known.codes.length < CODES_MAX) known.codes.push(code);
  }

  addAll(code: number): void {
    for (const nexusId of this.#owed.keys()) this.add(nexusId, code);
  }

  /** Takes the oldest code owed, or undefined. */
  take(nexusId: string): number | undefined {
    return this.#owed.get(nexusId)?.codes.shift();
  }

  #makeRoom(): void {
    if (this.#owed.size < NEXUSES_MAX) return;
    for (const [nexusId, { connected }] of this.#owed) {
      if (!connected) {
        this.#owed.delete(nexusId);
        return;
      }
    }
  }
}
