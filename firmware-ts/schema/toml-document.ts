/**
 * From a TOML text to a value that a schema accepts, or to a list of problems, each of which names the file, the line, what was expected there and what
 * was found. Pure: whoever reads the file, this module judges its text.
 *
 * Obligations: never throws on any text; reports all problems of the shape at once; refuses unknown keys (a
 * misspelt time limit that is silently ignored would be discovered in a takeover).
 */
import { parse, TomlError } from "smol-toml";
import type { z } from "zod";
import { describeFound, issueWords, unknownKeyWords } from "./config-words.ts";
import { type Fault, failed } from "./outcome.ts";
import { type KeyLines, type KeyPath, keyLines } from "./toml-lines.ts";

const depthMax = 12;
const problemsMax = 50;

/** One thing that is wrong with a text. `line` counts from 1; `path` is written as in the file. */
export interface TextProblem {
  readonly file: string;
  readonly line: number;
  readonly path: string;
  readonly message: string;
}

/** An `Outcome<T>` that on failure also carries the problems one by one. */
export type TextOutcome<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly fault: Fault; readonly problems: readonly TextProblem[] };

/** `file:line: path: message`, the form that editors and compilers share. */
export function formatProblem(problem: TextProblem): string {
  const path = problem.path === "" ? "" : `${problem.path}: `;
  return `${problem.file}:${problem.line}: ${path}${problem.message}`;
}

/** Wraps problems as a failed outcome: fault `badInput`, one line of text per problem. */
export function textFailure(problems: readonly TextProblem[]) {
  const message = problems.map(formatProblem).join("\n");
  return { ...failed("badInput", "read configuration", message), problems };
}

/** Bytes as text; a failure when they are too many, or no UTF-8. */
export function decodeText(bytes: Uint8Array, file: string, bytesMax: number): TextOutcome<string> {
  const refuse = (message: string) => textFailure([{ file, line: 1, path: "", message }]);
  if (bytes.length > bytesMax) return refuse(`expected at most ${bytesMax} bytes, found more`);
  try {
    return { ok: true, value: new TextDecoder("utf-8", { fatal: true }).decode(bytes) };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return refuse("expected UTF-8 text, found other bytes");
  }
}

/** What a text says, its keys as they are written there. */
export function parseToml(text: string, file: string): TextOutcome<Record<string, unknown>> {
  try {
    return { ok: true, value: parse(text, { maxDepth: depthMax }) };
  } catch (error) {
    return textFailure([syntaxProblem(error, file)]);
  }
}

/** What the values of a document have to be. */
export interface Shape<T> {
  readonly schema: z.ZodType<T>;
  /** Where that is in the configuration, whose words are used. */
  readonly base: KeyPath;
}

/** Judges a document whose keys are in snake_case; `text` is what it was read from, for the lines. */
export function judgeDocument<T>(
  document: Record<string, unknown>,
  text: string,
  file: string,
  { schema, base }: Shape<T>,
): TextOutcome<T> {
  const lines = keyLines(text);
  const strangers: KeyPath[] = [];
  const value = toCamelCase(document, [], strangers);
  const parsed = schema.safeParse(value, { reportInput: true });
  if (parsed.success && strangers.length === 0) return { ok: true, value: parsed.data };
  const complain = (path: KeyPath, message: string): TextProblem => ({
    file,
    line: lineOf(lines, path),
    path: writtenPath(path),
    message,
  });
  const problems = strangers.map((path) => {
    const parent = writtenPath(path.slice(0, -1));
    const key = String(path.at(-1));
    const problem = complain(path, unknownKeyWords([...base, ...path.slice(0, -1)], key));
    return { ...problem, path: parent === "" ? key : `${parent}.${key}` };
  });
  for (const issue of parsed.error?.issues ?? [])
    for (const [path, message] of messagesOf(issue, value, base))
      problems.push(complain(path, message));
  problems.sort((a, b) => a.line - b.line);
  return textFailure(problems.slice(0, problemsMax));
}

/** smol-toml's error carries line and column; its first line says what is wrong, the rest draws the place. */
function syntaxProblem(error: unknown, file: string): TextProblem {
  if (!(error instanceof TomlError)) {
    // Every other exception of the parser (its depth limit, say) is about the text as well.
    const message = error instanceof Error ? error.message : String(error);
    return { file, line: 1, path: "", message: `not TOML: ${message}` };
  }
  const [what = ""] = error.message.split("\n");
  const found = (error.codeblock.match(new RegExp(`^${error.line}:(.*)$`, "m"))?.[1] ?? "").trim();
  const reason = what.replace(/^Invalid TOML document: /, "");
  const message = `expected TOML, found ${JSON.stringify(found.slice(0, 60))}: ${reason} (column ${error.column})`;
  return { file, line: error.line, path: "", message };
}

/** The messages of one zod issue; unknown keys come several to an issue. */
function messagesOf(
  issue: z.core.$ZodIssue,
  document: unknown,
  base: KeyPath,
): [KeyPath, string][] {
  const path = issue.path.map((part) => (typeof part === "symbol" ? String(part) : part));
  const words = issueWords(issue, [...base, ...path]);
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((key, i) => [[...path, key], words[i] ?? issue.message]);
  const found = describeFound(valueAt(document, path));
  return words.map((text) => [
    path,
    text.startsWith("expected") ? `${text}; found ${found}` : text,
  ]);
}

function valueAt(document: unknown, path: KeyPath): unknown {
  let value: unknown = document;
  for (const part of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, part))
      return undefined;
    value = (value as Record<string | number, unknown>)[part];
  }
  return value;
}

/** The line of the key itself or, for a key that is missing, of the closest table around it. */
function lineOf(lines: KeyLines, path: KeyPath): number {
  const written = path.map((part) => (typeof part === "number" ? part : snakeCase(part)));
  for (let length = path.length; length > 0; length -= 1) {
    const line = lines.exact(path.slice(0, length)) ?? lines.exact(written.slice(0, length));
    if (line !== undefined) return line;
  }
  return 1;
}

/** `virtual_servers[1].name`, as an administrator would write it. */
function writtenPath(path: KeyPath): string {
  return path
    .map((part) => (typeof part === "number" ? `[${part}]` : `.${snakeCase(part.slice(0, 60))}`))
    .join("")
    .replace(/^\./, "");
}

const camelCase = (key: string) => key.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
export const snakeCase = (key: string) =>
  key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** Renames keys; those not in snake_case are left out and noted in `strangers`, so that each key has one spelling. */
function toCamelCase(value: unknown, path: KeyPath, strangers: KeyPath[]): unknown {
  if (Array.isArray(value))
    return value.map((each, i) => toCamelCase(each, [...path, i], strangers));
  if (typeof value !== "object" || value === null || value instanceof Date) return value;
  const entries: [string, unknown][] = [];
  for (const [key, inner] of Object.entries(value)) {
    const renamed = camelCase(key);
    // `__proto__` would not survive as a key of a plain object.
    if (/[A-Z]/.test(key) || key.startsWith("__")) strangers.push([...path, key]);
    else entries.push([renamed, toCamelCase(inner, [...path, renamed], strangers)]);
  }
  return Object.fromEntries(entries);
}

export function toSnakeCase(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(toSnakeCase);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).filter(([, inner]) => inner !== undefined);
  return Object.fromEntries(entries.map(([key, inner]) => [snakeCase(key), toSnakeCase(inner)]));
}
