/** What a link reported, for tests to wait on. */
import type { LinkHandlers } from "../../../hal/port/link.ts";

export class LinkLog implements LinkHandlers {
  readonly frames: Uint8Array[] = [];
  readonly carriers: { up: boolean; reason: string }[] = [];

  readonly frame = (frame: Uint8Array): void => {
    this.frames.push(Uint8Array.from(frame));
  };

  readonly carrier = (up: boolean, reason: string): void => {
    this.carriers.push({ up, reason });
  };

  get up(): boolean {
    return this.carriers.at(-1)?.up ?? false;
  }
}
