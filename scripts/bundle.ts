/**
 * Bundles the three programs of a controller into plain JavaScript: no type is stripped and no unused module loaded when one starts, which
 * halves both its memory and the time until it serves (docs/design/0015-memory.md). `node scripts/bundle.ts` says where they are.
 *
 * A bundle lies in `work/build` under the hash of everything that it is made of, so it is never stale and is made once. What sources
 * take from their own place (`import.meta`) is translated: programs to each other, folders to where they are in the sources.
 */
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
} from "node:fs";
import { basename, dirname, join, relative, resolve } from "node:path";
import type { Plugin } from "rolldown";

const repoDir = resolve(import.meta.dirname, "..");
const buildDir = join(repoDir, "work", "build");

/** The programs by the names of their bundles. */
const programs = {
  main: "firmware-ts/daemon/main.ts",
  beat: "firmware-ts/daemon/beat-main.ts",
  block: "hal/block/service/main.ts",
} as const;

/** Native modules find their libraries beside themselves. */
const external = ["koffi", "@serialport/bindings-cpp"];

/** A world that runs may start a program of its bundle again, also after sources were changed. */
const bundlesKept = 8;

/** The program that starts the others: the daemon's main process. Bundled first if it has changed since. */
export async function bundledFirmware(): Promise<string> {
  const place = join(buildDir, fingerprint());
  if (existsSync(place)) {
    const now = new Date();
    utimesSync(place, now, now);
  } else {
    await bundle(place);
    removeOld();
  }
  return join(place, "main.js");
}

/** Everything that a bundle depends on: our sources, the versions of the packages, and this file. */
function fingerprint(): string {
  const hash = createHash("sha256");
  const sources = ["firmware-ts", "hal"].flatMap((room) =>
    readdirSync(join(repoDir, room), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts"))
      .map((name) => join(room, name)),
  );
  for (const name of [...sources.toSorted(), "package-lock.json", "scripts/bundle.ts"]) {
    hash.update(`${name}\0`);
    hash.update(readFileSync(join(repoDir, name)));
  }
  return hash.digest("hex").slice(0, 16);
}

/** Makes all programs under a name of their own, then gives them theirs in one step: two worlds may start at once. */
async function bundle(place: string): Promise<void> {
  const { rolldown } = await import("rolldown");
  mkdirSync(buildDir, { recursive: true });
  const draft = mkdtempSync(`${place}.`);
  try {
    for (const [name, source] of Object.entries(programs)) {
      const build = await rolldown({
        input: { [name]: join(repoDir, source) },
        cwd: repoDir,
        platform: "node",
        external,
        plugins: [placesOf(place), englishOnly, asciiOnly],
        // That a machine is slow says nothing about the bundle.
        checks: { bundlerTimings: false },
        onLog(level, log) {
          if (level === "warn") throw new Error(`bundle ${name}: ${log.message}`);
        },
      });
      await build.write({
        dir: draft,
        format: "esm",
        entryFileNames: "[name].js",
        chunkFileNames: "[name]-[hash].js",
        sourcemap: true,
        comments: false,
        // Names stay: they are what a stack trace is read by.
        minify: { compress: true, mangle: false, codegen: { removeWhitespace: false } },
      });
      await build.close();
    }
    renameSync(draft, place);
  } catch (error) {
    rmSync(draft, { recursive: true, force: true });
    // Somebody else was faster.
    if (!existsSync(place)) throw error;
  }
}

/** The newest are kept, by their last use. */
function removeOld(): void {
  const made = readdirSync(buildDir)
    .filter((name) => /^[0-9a-f]{16}$/.test(name))
    .map((name) => ({ name, usedMs: statSync(join(buildDir, name)).mtimeMs }))
    .toSorted((a, b) => b.usedMs - a.usedMs);
  for (const { name } of made.slice(bundlesKept))
    rmSync(join(buildDir, name), { recursive: true, force: true });
}

/** Translates what a source says of its own place. Throws for what it does not know, rather than let it point nowhere. */
function placesOf(place: string): Plugin {
  const program = (path: string) => {
    const found = Object.entries(programs).find(([, source]) => join(repoDir, source) === path);
    if (!found) throw new Error(`bundle: ${path} is none of the programs`);
    return `new URL("./${found[0]}.js", import.meta.url)`;
  };
  return {
    name: "places",
    transform(code, id) {
      if (!id.endsWith(".ts") || id.includes("/node_modules/")) return undefined;
      if (!code.includes("import.meta")) return undefined;
      const folder = relative(place, dirname(id));
      const known = code
        .replaceAll(/new URL\("([^"]+\.ts)", import\.meta\.url\)/g, (_, name: string) =>
          program(resolve(dirname(id), name)),
        )
        .replaceAll("import.meta.dirname", `(import.meta.dirname + "/${folder}")`);
      const left = known.match(/import\.meta\.(?!url\)|dirname \+)\w+/);
      if (left) throw new Error(`bundle: ${id} uses ${left[0]}`);
      return { code: known, map: null };
    },
  };
}

/** zod's messages in fifty languages are a quarter of the main program. */
const englishOnly: Plugin = {
  name: "english only",
  load(id) {
    const isList = basename(id) === "index.js" && id.endsWith("/zod/v4/locales/index.js");
    return isList ? 'export { default as en } from "./en.js";' : undefined;
  },
};

/** One character beyond Latin 1 makes V8 keep the whole text with two bytes for each. */
const asciiOnly: Plugin = {
  name: "ascii only",
  generateBundle(_options, chunks) {
    for (const chunk of Object.values(chunks)) {
      if (chunk.type !== "chunk") continue;
      chunk.code = chunk.code.replaceAll(
        /[^\0-\x7f]/g,
        (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
      );
    }
  },
};

if (import.meta.main) process.stdout.write(`${await bundledFirmware()}\n`);
