/** Text with colours (SGR sequences of ECMA-48 8.3.117) in columns of fixed width. Pure. */

const csi = "\x1b[";
/** Every sequence that this view itself writes. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: the escape character is what is looked for.
const sgr = /\x1b\[([0-9;]*)m/g;

export type Style = "bold" | "dim" | "red" | "green" | "yellow" | "cyan" | "inverse";

const codes: { readonly [style in Style]: string } = {
  bold: "1",
  dim: "90",
  red: "31",
  green: "32",
  yellow: "33",
  cyan: "36",
  inverse: "7",
};

export function styled(text: string, ...styles: readonly Style[]): string {
  if (styles.length === 0) return text;
  return `${csi}${styles.map((style) => codes[style]).join(";")}m${text}${csi}0m`;
}

export function plain(text: string): string {
  return text.replace(sgr, "");
}

/** Columns on the screen. Every character that the view uses is one column wide. */
export function widthOf(text: string): number {
  return [...plain(text)].length;
}

/** Exactly `width` columns: cut (styles end) or filled up with spaces. */
export function fitTo(text: string, width: number): string {
  const missing = width - widthOf(text);
  if (missing >= 0) return text + " ".repeat(missing);
  let kept = "";
  let columns = 0;
  for (const cell of cellsOf(text)) {
    if (columns === width) break;
    kept += cell.codes === "" ? cell.character : `${csi}${cell.codes}m${cell.character}${csi}0m`;
    columns += 1;
  }
  return kept;
}

export interface Cell {
  readonly character: string;
  /** The SGR codes in force, as they were written; empty: none. */
  readonly codes: string;
}

/** One cell per column. */
export function cellsOf(line: string): Cell[] {
  const cells: Cell[] = [];
  let codesNow = "";
  let at = 0;
  const take = (text: string) => {
    for (const character of text) cells.push({ character, codes: codesNow });
  };
  for (const match of line.matchAll(sgr)) {
    take(line.slice(at, match.index));
    const given = match[1] ?? "";
    codesNow = given === "0" || given === "" ? "" : given;
    at = match.index + match[0].length;
  }
  take(line.slice(at));
  return cells;
}

/** Columns side by side, each fitted to its width. */
export function columns(parts: readonly (readonly [text: string, width: number])[]): string {
  return parts.map(([text, width]) => fitTo(text, width)).join("");
}
