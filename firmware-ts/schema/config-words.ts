/**
 * The words of configuration errors: what a place of the file expects (read from the schema itself, so that words and
 * rules cannot drift apart), what was found there, and which key was probably meant.
 */
import { z } from "zod";
import { configSchema } from "./config.ts";
import type { KeyPath } from "./toml-lines.ts";

/** The few words of JSON Schema that `z.toJSONSchema` uses for our configuration. */
interface SchemaNode {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly items?: SchemaNode;
  readonly anyOf?: readonly SchemaNode[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly format?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
}

let cachedRoot: SchemaNode | undefined;
function root(): SchemaNode {
  cachedRoot ??= z.toJSONSchema(configSchema, {
    io: "input",
    unrepresentable: "any",
    reused: "inline",
  }) as SchemaNode;
  return cachedRoot;
}

/** The schema of one place; undefined for a place that the schema does not know. */
export function nodeAt(path: KeyPath): SchemaNode | undefined {
  let node: SchemaNode | undefined = root();
  for (const part of path) {
    if (node === undefined) return undefined;
    node = typeof part === "number" ? node.items : own(node.properties, part);
  }
  return node;
}

function own(properties: SchemaNode["properties"], key: string): SchemaNode | undefined {
  return properties !== undefined && Object.hasOwn(properties, key) ? properties[key] : undefined;
}

/** "a whole number from 5 to 1000"; undefined when the schema says nothing useful. */
export function describeExpectation(node: SchemaNode | undefined): string | undefined {
  if (node === undefined) return undefined;
  if (node.const !== undefined) return JSON.stringify(node.const);
  if (node.enum) return `one of ${node.enum.map((each) => JSON.stringify(each)).join(", ")}`;
  const formats = (node.anyOf ?? []).map((each) => each.format);
  if (formats.includes("ipv4") && formats.includes("ipv6")) return "an IPv4 or IPv6 address";
  switch (node.type) {
    case "integer":
      return `a whole number${range(node.minimum, node.maximum, "")}`;
    case "boolean":
      return "true or false";
    case "string":
      return `a text${range(node.minLength, node.maxLength, " characters")}`;
    case "array":
      return `an array${range(node.minItems, node.maxItems, " entries")}`;
    case "object":
      return "a table";
    default:
      return undefined;
  }
}

/**
 * What is wrong at a place of the configuration, in words that say what is expected there; unknown keys come several to an issue. `path`: where that is,
 * from the top of the configuration.
 */
export function issueWords(issue: z.core.$ZodIssue, path: KeyPath): string[] {
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((key) => unknownKeyWords(path, toSnake(key)));
  if (issue.code === "custom" || issue.message.startsWith("expected")) return [issue.message];
  return [`expected ${describeExpectation(nodeAt(path)) ?? issue.message}`];
}

/** `key` as it is written in the file. */
export function unknownKeyWords(table: KeyPath, key: string): string {
  const hint = suggestKey(table, key);
  return `unknown key ${JSON.stringify(key.slice(0, 60))}${hint === undefined ? "" : `; ${hint}`}`;
}

/** " from 5 to 1000" for numbers, " of 1 to 8 entries" for what is counted. */
function range(low: number | undefined, high: number | undefined, unit: string): string {
  const joint = unit === "" ? "" : " of";
  if (low !== undefined && high !== undefined)
    return `${unit === "" ? " from" : " of"} ${low} to ${high}${unit}`;
  if (low !== undefined) return `${joint} at least ${low}${unit}`;
  return high === undefined ? "" : `${joint} at most ${high}${unit}`;
}

/** A value as an administrator would recognise it, cut to a length that fits a line. */
export function describeFound(value: unknown): string {
  if (value === undefined) return "nothing";
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (value instanceof Date) return "a date or time";
  if (typeof value === "object") return "a table";
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= 60 ? text : `${text.slice(0, 57)}…`;
}

/** "did you mean …?", or the table that a known key belongs to; undefined when nothing is near. */
function suggestKey(table: KeyPath, key: string): string | undefined {
  const written = toSnake(key);
  const near = closest(written, Object.keys(nodeAt(table)?.properties ?? {}).map(toSnake));
  if (near !== undefined) return `did you mean ${near}?`;
  const homes = tablesWith(root(), [], written);
  if (homes.length > 0) return `that key belongs to ${homes.join(" or ")}`;
  const known = Object.keys(nodeAt(table)?.properties ?? {}).map(toSnake);
  return known.length > 0 ? `known here: ${known.join(", ")}` : undefined;
}

const toSnake = (key: string) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function tablesWith(node: SchemaNode, path: readonly string[], key: string): string[] {
  const homes: string[] = [];
  for (const [name, inner] of Object.entries(node.properties ?? {})) {
    const here = [...path, toSnake(name)];
    if (toSnake(name) === key)
      homes.push(path.length === 0 ? "the top of the file" : `[${path.join(".")}]`);
    homes.push(...tablesWith(inner.items ?? inner, here, key));
  }
  return homes;
}

/** The candidate within a third of the word's length in edits, if there is one. */
function closest(word: string, candidates: readonly string[]): string | undefined {
  if (word.length > 64) return undefined;
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word, candidate);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** Levenshtein's distance, with two rows. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i += 1) {
    const current = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const substitution = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(substitution, (previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[b.length] ?? 0;
}
