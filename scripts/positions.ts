/**
 * Stack traces of bundled programs in terms of their sources: `node scripts/positions.ts < LOG`. Afterwards, by whoever reads them: a
 * process that could do so itself would hold the maps in memory all its life, and would need time for them when it ends.
 */
import { readFileSync } from "node:fs";
import { SourceMap } from "node:module";
import { dirname, relative, resolve } from "node:path";
import { text } from "node:stream/consumers";

const position = /(?:file:\/\/)?(\/[^\s():]+\/work\/build\/[0-9a-f]{16}\/[\w-]+\.js):(\d+):(\d+)/g;

/** Replaces each position in a bundle by that in the source; what cannot be looked up stays. */
export function inSources(log: string): string {
  const maps = new Map<string, SourceMap | undefined>();
  return log.replaceAll(position, (whole, path: string, line: string, column: string) => {
    if (!maps.has(path)) maps.set(path, mapOf(path));
    const origin = maps.get(path)?.findOrigin(Number(line), Number(column));
    if (!origin || !("fileName" in origin)) return whole;
    const source = resolve(dirname(path), origin.fileName);
    return `${relative(resolve(dirname(path), "../../.."), source)}:${origin.lineNumber}:${origin.columnNumber}`;
  });
}

function mapOf(path: string): SourceMap | undefined {
  try {
    return new SourceMap(JSON.parse(readFileSync(`${path}.map`, "utf8")));
  } catch {
    return undefined;
  }
}

if (import.meta.main) process.stdout.write(inSources(await text(process.stdin)));
