/**
 * A text that describes one virtual server in the words of the configuration file: its keys alone, or one `[[virtual_servers]]`; as TOML, or as JSON with
 * the same keys. And back.
 */
import { stringify } from "smol-toml";
import { z } from "zod";
import { type VirtualServerInput, virtualServerInputSchema } from "./config.ts";
import {
  decodeText,
  judgeDocument,
  parseToml,
  type TextOutcome,
  textFailure,
  toSnakeCase,
} from "./toml-document.ts";

/** As much of everything as there may be is about 10 KiB. */
export const serverBytesMax = 16 * 1024;

const bare = { schema: virtualServerInputSchema, base: ["virtualServers", 0] } as const;
const listed = {
  schema: z.strictObject({ virtualServers: z.array(virtualServerInputSchema).length(1) }),
  base: [],
} as const;

/** Parses the bytes of such a file; `file` is only used in messages. */
export function parseServerBytes(bytes: Uint8Array, file: string): TextOutcome<VirtualServerInput> {
  const decoded = decodeText(bytes, file, serverBytesMax);
  if (!decoded.ok) return decoded;
  const isJson = /^\s*\{/.test(decoded.value);
  const document = (isJson ? parseJson : parseToml)(decoded.value, file);
  if (!document.ok) return document;
  // Lines are found in TOML only.
  const text = isJson ? "" : decoded.value;
  if (!Object.hasOwn(document.value, "virtual_servers"))
    return judgeDocument(document.value, text, file, bare);
  const judged = judgeDocument(document.value, text, file, listed);
  if (!judged.ok) return judged;
  const [server] = judged.value.virtualServers;
  if (!server) throw new Error("the schema demands one virtual server");
  return { ok: true, value: server };
}

function parseJson(text: string, file: string): TextOutcome<Record<string, unknown>> {
  try {
    return { ok: true, value: JSON.parse(text) as Record<string, unknown> };
  } catch (error) {
    const message = `expected JSON: ${error instanceof Error ? error.message : String(error)}`;
    return textFailure([{ file, line: 1, path: "", message }]);
  }
}

/** As an entry of the configuration file, which `parseServerBytes` understands. */
export function formatServer(server: VirtualServerInput): string {
  return stringify(toSnakeCase({ virtualServers: [server] }));
}
