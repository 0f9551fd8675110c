/**
 * From the text of `dyad.toml` to a `Config`, or to a list of problems, each of which names the file, the line, what was
 * expected there and what was found. Pure: daemon and CLI read the file, this module judges its text.
 *
 * Obligations: never throws on any text; reports all problems of the shape at once; refuses unknown keys (a
 * misspelt time limit that is silently ignored would be discovered in a takeover).
 */
import { parse, stringify, TomlError } from "smol-toml";
import { z } from "zod";
import { type Config, configSchema } from "./config.ts";
import { describeExpectation, describeFound, nodeAt, suggestKey } from "./config-words.ts";
import { type Fault, failed } from "./outcome.ts";
import { type KeyLines, type KeyPath, keyLines } from "./toml-lines.ts";

/** A configuration of 16 virtual servers is about 6 KiB. */
export const configBytesMax = 128 * 1024;
const depthMax = 12;
const problemsMax = 50;

/** One thing that is wrong with a configuration. `line` counts from 1; `path` is written as in the file. */
export interface ConfigProblem {
  readonly file: string;
  readonly line: number;
  readonly path: string;
  readonly message: string;
}

/** An `Outcome<Config>` that on failure also carries the problems one by one. */
export type ConfigOutcome =
  | { readonly ok: true; readonly value: Config }
  | { readonly ok: false; readonly fault: Fault; readonly problems: readonly ConfigProblem[] };

/** `file:line: path: message`, the form that editors and compilers share. */
export function formatProblem(problem: ConfigProblem): string {
  const path = problem.path === "" ? "" : `${problem.path}: `;
  return `${problem.file}:${problem.line}: ${path}${problem.message}`;
}

/** Wraps problems as a failed outcome: fault `badInput`, one line of text per problem. */
export function configFailure(problems: readonly ConfigProblem[]): ConfigOutcome {
  const message = problems.map(formatProblem).join("\n");
  return { ...failed("badInput", "read configuration", message), problems };
}

/** Parses the bytes of a configuration file; `file` is only used in messages. */
export function parseConfigBytes(bytes: Uint8Array, file: string): ConfigOutcome {
  const refuse = (message: string) => configFailure([{ file, line: 1, path: "", message }]);
  if (bytes.length > configBytesMax)
    return refuse(`expected at most ${configBytesMax} bytes, found more`);
  try {
    return parseConfigText(new TextDecoder("utf-8", { fatal: true }).decode(bytes), file);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return refuse("expected UTF-8 text, found other bytes");
  }
}

/** Parses the text of a configuration file; `file` is only used in messages. */
export function parseConfigText(text: string, file: string): ConfigOutcome {
  let document: Record<string, unknown>;
  try {
    document = parse(text, { maxDepth: depthMax });
  } catch (error) {
    return configFailure([syntaxProblem(error, file)]);
  }
  const lines = keyLines(text);
  const strangers: KeyPath[] = [];
  const value = toCamelCase(document, [], strangers);
  const parsed = configSchema.safeParse(value, { reportInput: true });
  if (parsed.success && strangers.length === 0) return { ok: true, value: parsed.data };
  const complain = (path: KeyPath, message: string): ConfigProblem => ({
    file,
    line: lineOf(lines, path),
    path: writtenPath(path),
    message,
  });
  const problems = strangers.map((path) => {
    const parent = writtenPath(path.slice(0, -1));
    const key = String(path.at(-1));
    const problem = complain(path, unknownKeyMessage(path.slice(0, -1), key));
    return { ...problem, path: parent === "" ? key : `${parent}.${key}` };
  });
  for (const issue of parsed.error?.issues ?? [])
    for (const [path, message] of messagesOf(issue, value)) problems.push(complain(path, message));
  problems.sort((a, b) => a.line - b.line);
  return configFailure(problems.slice(0, problemsMax));
}

/** The configuration as TOML with every default filled in: what is in force. */
export function formatConfig(config: Config): string {
  return stringify(toSnakeCase(config));
}

/** JSON Schema (2020-12) of the file as it is written, with snake_case keys, for editors. */
export function configJsonSchema(): Record<string, unknown> {
  const schema = z.toJSONSchema(configSchema, { io: "input", unrepresentable: "any" });
  return renameProperties(schema) as Record<string, unknown>;
}

/** smol-toml's error carries line and column; its first line says what is wrong, the rest draws the place. */
function syntaxProblem(error: unknown, file: string): ConfigProblem {
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
function messagesOf(issue: z.core.$ZodIssue, document: unknown): [KeyPath, string][] {
  const path = issue.path.map((part) => (typeof part === "symbol" ? String(part) : part));
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((key) => [[...path, key], unknownKeyMessage(path, snakeCase(key))]);
  const value = valueAt(document, path);
  const found = describeFound(value);
  if (issue.code === "custom" || issue.message.startsWith("expected")) {
    const stated = issue.message.startsWith("expected");
    return [[path, stated ? `${issue.message}; found ${found}` : issue.message]];
  }
  const expected = describeExpectation(nodeAt(path)) ?? issue.message;
  return [[path, `expected ${expected}; found ${found}`]];
}

/** `key` as it is written in the file. */
function unknownKeyMessage(table: KeyPath, key: string): string {
  const hint = suggestKey(table, key);
  return `unknown key ${JSON.stringify(key.slice(0, 60))}${hint === undefined ? "" : `; ${hint}`}`;
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
const snakeCase = (key: string) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

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

function toSnakeCase(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(toSnakeCase);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).filter(([, inner]) => inner !== undefined);
  return Object.fromEntries(entries.map(([key, inner]) => [snakeCase(key), toSnakeCase(inner)]));
}

/** Renames the keys of `properties` and the names in `required`, at every level of a JSON Schema. */
function renameProperties(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(renameProperties);
  if (typeof node !== "object" || node === null) return node;
  return Object.fromEntries(
    Object.entries(node).map(([key, inner]) => {
      if (key === "required" && Array.isArray(inner))
        return [key, inner.map((name) => snakeCase(String(name)))];
      if (key === "default") return [key, toSnakeCase(inner)];
      if (key !== "properties") return [key, renameProperties(inner)];
      const renamed = Object.entries(inner as object).map(([name, each]) => [
        snakeCase(name),
        renameProperties(each),
      ]);
      return [key, Object.fromEntries(renamed)];
    }),
  );
}
