/**
 * Where each key of a TOML text stands. The TOML parser hands out values without positions; an error about a
 * value must name its line, so this scanner walks a text *that the parser has already accepted* and notes them.
 *
 * Because the text is known to be valid (TOML 1.0), the scanner only has to tell apart keys, strings, arrays, inline
 * tables and everything else; it never judges.
 */

/** A place in the document: keys and array indexes, outermost first. */
export type KeyPath = readonly (string | number)[];

/** Looks up the line (from 1) on which a path's key, table header or array element begins. */
export interface KeyLines {
  readonly exact: (path: KeyPath) => number | undefined;
}

interface Scanner {
  readonly text: string;
  readonly lines: Map<string, number>;
  /** Newest index of each array of tables, by the resolved path of the array. */
  readonly tableIndexes: Map<string, number>;
  position: number;
  line: number;
}

const nameOf = (path: KeyPath) => JSON.stringify(path);

/** Scans a valid TOML text once. The first mention of a path wins. */
export function keyLines(text: string): KeyLines {
  const scanner: Scanner = {
    text,
    lines: new Map(),
    tableIndexes: new Map(),
    position: 0,
    line: 1,
  };
  let table: KeyPath = [];
  for (skipBlank(scanner); scanner.position < text.length; skipBlank(scanner)) {
    if (text[scanner.position] === "[") table = readHeader(scanner);
    else readAssignment(scanner, table);
  }
  return { exact: (path) => scanner.lines.get(nameOf(path)) };
}

function note(scanner: Scanner, path: KeyPath): void {
  const name = nameOf(path);
  if (!scanner.lines.has(name)) scanner.lines.set(name, scanner.line);
}

/** Steps over one character and counts lines. */
function step(scanner: Scanner): void {
  if (scanner.text[scanner.position] === "\n") scanner.line += 1;
  scanner.position += 1;
}

function stepTo(scanner: Scanner, position: number): void {
  while (scanner.position < Math.min(position, scanner.text.length)) step(scanner);
}

/** White space, line ends, comments, and the commas between elements. */
function skipBlank(scanner: Scanner): void {
  const { text } = scanner;
  while (scanner.position < text.length) {
    const character = text[scanner.position] ?? "";
    if (character === "#") {
      const end = text.indexOf("\n", scanner.position);
      stepTo(scanner, end < 0 ? text.length : end);
    } else if (/[\s,\uFEFF]/.test(character)) step(scanner);
    else return;
  }
}

/** `[table]` or `[[array of tables]]`; returns the path that the following keys are relative to. */
function readHeader(scanner: Scanner): KeyPath {
  const array = scanner.text.startsWith("[[", scanner.position);
  stepTo(scanner, scanner.position + (array ? 2 : 1));
  const keys = readKeys(scanner);
  stepTo(scanner, scanner.position + (array ? 2 : 1));
  let path: KeyPath = [];
  keys.forEach((key, i) => {
    path = [...path, key];
    note(scanner, path);
    const name = nameOf(path);
    if (array && i === keys.length - 1)
      scanner.tableIndexes.set(name, (scanner.tableIndexes.get(name) ?? -1) + 1);
    const index = scanner.tableIndexes.get(name);
    if (index !== undefined) path = [...path, index];
  });
  note(scanner, path);
  return path;
}

/** `key = value` or `a.b = value`. */
function readAssignment(scanner: Scanner, table: KeyPath): void {
  const start = scanner.position;
  let path = table;
  for (const key of readKeys(scanner)) {
    path = [...path, key];
    note(scanner, path);
  }
  skipBlank(scanner); // to the equals sign
  step(scanner);
  skipBlank(scanner);
  readValue(scanner, path);
  // A text that the parser accepted always moves us on; anything else would loop for ever.
  if (scanner.position === start) throw new Error(`toml-lines: stuck on line ${scanner.line}`);
}

/** The keys of a dotted key, up to `=` or `]`. */
function readKeys(scanner: Scanner): string[] {
  const keys: string[] = [];
  for (;;) {
    while (/[ \t.]/.test(scanner.text[scanner.position] ?? "")) step(scanner);
    const character = scanner.text[scanner.position] ?? "]";
    if (character === "=" || character === "]") return keys;
    if (character === '"' || character === "'") {
      const start = scanner.position;
      skipString(scanner);
      keys.push(unquote(scanner.text.slice(start, scanner.position)));
      continue;
    }
    const bare = /^[^\s.=\]"']+/.exec(scanner.text.slice(scanner.position, scanner.position + 256));
    keys.push(bare?.[0] ?? "");
    stepTo(scanner, scanner.position + Math.max(1, bare?.[0].length ?? 0));
  }
}

function unquote(quoted: string): string {
  if (quoted.startsWith("'")) return quoted.slice(1, -1);
  try {
    return String(JSON.parse(quoted));
  } catch {
    return quoted.slice(1, -1); // an escape that only TOML knows: the name serves for nothing but a lookup
  }
}

function readValue(scanner: Scanner, path: KeyPath): void {
  const character = scanner.text[scanner.position];
  if (character === '"' || character === "'") skipString(scanner);
  else if (character === "[") readArray(scanner, path);
  else if (character === "{") readInlineTable(scanner, path);
  else while (/[^,\]}#\n]/.test(scanner.text[scanner.position] ?? "\n")) step(scanner);
}

function readArray(scanner: Scanner, path: KeyPath): void {
  step(scanner);
  skipBlank(scanner);
  for (let index = 0; !atEndOr(scanner, "]"); index += 1) {
    note(scanner, [...path, index]);
    readValue(scanner, [...path, index]);
    skipBlank(scanner);
  }
  step(scanner);
}

function readInlineTable(scanner: Scanner, path: KeyPath): void {
  step(scanner);
  skipBlank(scanner);
  while (!atEndOr(scanner, "}")) {
    readAssignment(scanner, path);
    skipBlank(scanner);
  }
  step(scanner);
}

function atEndOr(scanner: Scanner, closing: string): boolean {
  return scanner.position >= scanner.text.length || scanner.text[scanner.position] === closing;
}

/** Basic and literal strings, of one line or (three quotes) of many. */
function skipString(scanner: Scanner): void {
  const { text } = scanner;
  const quote = text[scanner.position] ?? "";
  const fence = text.startsWith(quote.repeat(3), scanner.position) ? quote.repeat(3) : quote;
  let end = scanner.position + fence.length;
  while (end < text.length && !text.startsWith(fence, end))
    end += quote === '"' && text[end] === "\\" ? 2 : 1;
  end += fence.length;
  // Up to two quotes may stand directly before the closing three (TOML 1.0, multi-line strings).
  while (fence.length === 3 && text[end] === quote) end += 1;
  stepTo(scanner, end);
}
