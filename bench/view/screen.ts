/** The terminal as a screen (ECMA-48 and xterm's alternate screen): lines that changed are written, nothing else. */
import type { ReadStream, WriteStream } from "node:tty";

const enter = "\x1b[?1049h\x1b[?25l\x1b[2J";
const leave = "\x1b[?25h\x1b[?1049l";

export class Screen {
  readonly #output: WriteStream;
  readonly #input: ReadStream;
  #shown: readonly string[] = [];
  #open = false;

  constructor(output: WriteStream, input: ReadStream) {
    this.#output = output;
    this.#input = input;
  }

  get width(): number {
    return this.#output.columns;
  }

  get height(): number {
    return this.#output.rows;
  }

  /** Takes the terminal over. `onKey` gets one character at a time; `onResize` is called when everything must be drawn anew. */
  open(onKey: (key: string) => void, onResize: () => void): void {
    this.#open = true;
    this.#output.write(enter);
    this.#input.setRawMode(true);
    this.#input.setEncoding("utf8");
    this.#input.on("data", (text: string) => {
      // Arrow and function keys come as one sequence, which must not be taken for its letters.
      if (!text.startsWith("\x1b")) for (const key of text) onKey(key);
    });
    this.#output.on("resize", () => {
      this.#shown = [];
      this.#output.write("\x1b[2J");
      onResize();
    });
  }

  show(lines: readonly string[]): void {
    if (!this.#open) return;
    let text = "";
    lines.forEach((line, i) => {
      if (this.#shown[i] !== line) text += `\x1b[${i + 1};1H${line}\x1b[0m`;
    });
    this.#shown = lines;
    if (text !== "") this.#output.write(text);
  }

  /** Gives the terminal back as it was. Twice is once. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#input.setRawMode(false);
    this.#input.pause();
    this.#output.write(leave);
  }
}
