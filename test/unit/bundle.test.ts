/** The bundled firmware: made once, whole, and readable when it breaks. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { bundledFirmware } from "../../scripts/bundle.ts";
import { inSources } from "../../scripts/positions.ts";

const main = await bundledFirmware();
const place = dirname(main);

function run(program: string, ...words: string[]) {
  return spawnSync(process.execPath, [join(place, program), ...words], { encoding: "utf8" });
}

describe("bundled firmware", () => {
  it("is made once for the same sources, also by two who ask at once", async () => {
    const { ino, birthtimeMs } = statSync(main);
    expect(await Promise.all([bundledFirmware(), bundledFirmware()])).toEqual([main, main]);
    expect(statSync(main)).toMatchObject({ ino, birthtimeMs });
  });

  it("is plain text of one byte for each character, programs and all", () => {
    const scripts = readdirSync(place).filter((name) => name.endsWith(".js"));
    expect(scripts).toEqual(expect.arrayContaining(["main.js", "beat.js", "block.js"]));
    for (const name of scripts)
      expect(readFileSync(join(place, name), "latin1")).not.toMatch(/[^\0-\x7f]/);
  });

  it("starts its own programs, and finds what lies beside the sources", () => {
    const text = readFileSync(main, "utf8");
    expect(text).toContain('new URL("./beat.js", import.meta.url)');
    expect(text).toContain('new URL("./block.js", import.meta.url)');
    const [folder] = text.match(/(?<=import\.meta\.dirname \+ ")[^"]+\/hal\/linux(?=")/) ?? [];
    for (const source of ["ganesha/read-barrier.c", "place/enter.c"])
      expect(statSync(join(place, folder ?? "", source)).isFile()).toBe(true);
  });

  it("runs", () => {
    expect(run("main.js", "--config", "/nonexistent.toml")).toMatchObject({
      status: 78,
      stderr: expect.stringContaining("/nonexistent.toml"),
    });
    expect(run("block.js")).toMatchObject({
      status: 2,
      stderr: expect.stringContaining("without a channel"),
    });
  });

  it("tells where it broke in terms of its sources", () => {
    const { stderr } = run("beat.js", "/nonexistent.toml");
    expect(stderr).toMatch(/at main \(file:\S+beat\.js:\d+:\d+\)/);
    const [, line] =
      inSources(stderr).match(/at main \(firmware-ts\/daemon\/beat-main\.ts:(\d+):/) ?? [];
    const source = readFileSync(
      join(import.meta.dirname, "../../firmware-ts/daemon/beat-main.ts"),
      "utf8",
    );
    expect(source.split("\n")[Number(line) - 1]).toContain("does not load");
  });

  it("leaves positions alone that it knows nothing of", () => {
    const log = `at x (/work/build/0123456789abcdef/main.js:1:1) at ${place}/nothing.js:3:4`;
    expect(inSources(log)).toBe(log);
  });
});
