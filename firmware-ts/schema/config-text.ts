/**
 * From the text of `dyad.toml` to a `Config`, or to a list of problems (toml-document.ts), and back. Pure: daemon and CLI read the file, this module judges
 * its text.
 */
import { stringify } from "smol-toml";
import { z } from "zod";
import { type Config, configSchema } from "./config.ts";
import {
  decodeText,
  judgeDocument,
  parseToml,
  snakeCase,
  type TextOutcome,
  toSnakeCase,
} from "./toml-document.ts";

/** A configuration of 16 virtual servers is about 6 KiB. */
export const configBytesMax = 128 * 1024;

export type ConfigOutcome = TextOutcome<Config>;

/** Parses the bytes of a configuration file; `file` is only used in messages. */
export function parseConfigBytes(bytes: Uint8Array, file: string): ConfigOutcome {
  const text = decodeText(bytes, file, configBytesMax);
  return text.ok ? parseConfigText(text.value, file) : text;
}

/** Parses the text of a configuration file; `file` is only used in messages. */
export function parseConfigText(text: string, file: string): ConfigOutcome {
  const document = parseToml(text, file);
  if (!document.ok) return document;
  return judgeDocument(document.value, text, file, { schema: configSchema, base: [] });
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
