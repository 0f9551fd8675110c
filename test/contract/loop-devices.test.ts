/** Loop devices that many ask for at once: as after a takeover, or when a controller starts. */
import { constants, writeFileSync } from "node:fs";
import { type FileHandle, open, readFile, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { explain } from "../../firmware-ts/schema/outcome.ts";
import { type BoundLoop, bindLoop } from "../../hal/block/loop.ts";
import { newFolder } from "./block-lab.ts";

const count = 48;
const sizeBytes = 1024 * 1024;

let folder: string;
const files: FileHandle[] = [];
const loops: BoundLoop[] = [];

beforeEach(async () => {
  folder = await newFolder();
});
afterEach(async () => {
  for (const { handle } of loops.splice(0)) await handle.close();
  for (const file of files.splice(0)) await file.close();
  await rm(folder, { recursive: true });
});

const backingOf = (path: string) =>
  readFile(`/sys/block/${basename(path)}/loop/backing_file`, "utf8").then(
    (text) => text.trim(),
    () => "",
  );

async function bindAll(): Promise<readonly string[]> {
  const bound = await Promise.all(
    files.map(({ fd }, at) => bindLoop(fd, { tag: `t${at}`, blockSizeBytes: 512, sizeBytes })),
  );
  for (const outcome of bound) {
    if (!outcome.ok) throw new Error(explain(outcome.fault));
    loops.push(outcome.value);
  }
  return loops.map(({ path }) => path);
}

test("each gets one of its own, bound to its file and to no other's", async () => {
  const paths = Array.from({ length: count }, (_, at) => join(folder, `disk-${at}`));
  for (const path of paths) {
    writeFileSync(path, Buffer.alloc(sizeBytes));
    files.push(await open(path, constants.O_RDWR | constants.O_DIRECT));
  }
  const devices = await bindAll();
  expect(new Set(devices).size).toBe(count);
  expect(await Promise.all(devices.map(backingOf))).toEqual(paths);

  // Those that went are free again, for this process too: a number is not spoken for any longer than it takes.
  for (const { handle } of loops.splice(0)) await handle.close();
  await expect.poll(async () => (await Promise.all(devices.map(backingOf))).join("")).toBe("");
  const again = await bindAll();
  expect(new Set(again).size).toBe(count);
  expect(again.some((path) => devices.includes(path))).toBe(true);
});
