/** Where a command writes to, and what it may assume about the reader. Tests pass their own. */
export interface Io {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** Both ends are a terminal: a person can be asked, and sees a drawing. */
  readonly interactive: boolean;
  readonly colour: boolean;
  /** Asks a person one question; only when `interactive`. */
  readonly ask: (question: string) => Promise<string>;
}

/** Options that every command has. */
export interface CommonOptions {
  readonly socket: string;
  readonly output: "table" | "json";
}

/** One JSON object per line. */
export function printJson(io: Io, value: unknown): void {
  io.out(`${JSON.stringify(value)}\n`);
}

/** Text from elsewhere must not steer the terminal: control characters are shown as question marks. */
export function plain(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, "?");
}
