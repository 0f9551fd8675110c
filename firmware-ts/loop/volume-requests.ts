/** Writings of the main process that the beat process makes: which answer belongs to which, and an end to waiting for one that stands still. */
import type { VolumeRecord, VolumeWritten } from "../schema/definition.ts";
import type { FromBeat, ToBeat } from "./channel.ts";

export interface VolumeRequestsHost {
  /** A timer of this process; the result ends it. */
  after(delayMs: number, run: () => void): () => void;
  /** The local monotonic clock. */
  nowMs(): number;
  beat(message: ToBeat): void;
  /** Coordinator disks. */
  readonly total: number;
}

/** The beat process answers at its deadline; this is what its word may take. */
const answerMs = 100;

export class VolumeRequests {
  readonly #host: VolumeRequestsHost;
  readonly #waiting = new Map<string, (written: VolumeWritten) => void>();
  #token = 0;

  constructor(host: VolumeRequestsHost) {
    this.#host = host;
  }

  /** `settle` is called once, `answerMs` after the limit at the latest: then with nothing that is known. */
  write(record: VolumeRecord, limitMs: number, settle: (written: VolumeWritten) => void): void {
    this.#token += 1;
    const token = `volume-${this.#token}`;
    const end = (written: VolumeWritten) => {
      stop();
      this.#waiting.delete(token);
      settle(written);
    };
    const { total } = this.#host;
    const untilMs = this.#host.nowMs() + limitMs;
    const stop = this.#host.after(limitMs + answerMs, () =>
      end({ accepted: 0, refused: 0, overtaken: 0, total }),
    );
    this.#waiting.set(token, end);
    this.#host.beat({ kind: "volumeWrite", token, record, untilMs });
  }

  /** The beat process has answered. An answer that nobody waits for any more is late. */
  written({ token, written }: Extract<FromBeat, { kind: "volumeWritten" }>): void {
    this.#waiting.get(token)?.(written);
  }
}
