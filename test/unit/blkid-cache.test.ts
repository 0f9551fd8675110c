/** The UUID that libblkid is told: from the kernel or the superblock, and never at the price of a loop that waits for a dead disk. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { afterAll, afterEach, beforeEach, expect, test, vi } from "vitest";
import { readUuid, uuidMountedAt } from "../../hal/linux/ganesha/blkid-cache.ts";

const directory = mkdtempSync(join(tmpdir(), "dyad-blkid-"));
afterAll(() => rmSync(directory, { recursive: true }));

// What may take 0.1 s is not cut short by a machine that takes longer for everything: time passes as the test says.
beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
});
afterEach(() => {
  vi.useRealTimers();
});

function device(name: string, change: (superblock: Buffer) => void): string {
  const block = Buffer.alloc(2048);
  block.writeUInt16LE(0xef53, 1024 + 0x38);
  Buffer.from("00112233445566778899aabbccddeeff", "hex").copy(block, 1024 + 0x68);
  change(block);
  const path = join(directory, name);
  writeFileSync(path, block);
  return path;
}

test("an ext4 superblock tells its UUID", async () => {
  const path = device("ext4", () => undefined);
  expect(await readUuid(path)).toBe("00112233-4455-6677-8899-aabbccddeeff");
});

test.each([
  ["another file system", (block: Buffer) => block.writeUInt16LE(0, 1024 + 0x38)],
  ["a device of zeros", (block: Buffer) => block.fill(0)],
])("%s has none", async (name, change) => {
  expect(await readUuid(device(name, change))).toBeUndefined();
});

test("a device that is missing or too short has none", async () => {
  expect(await readUuid(join(directory, "missing"))).toBeUndefined();
  const short = join(directory, "short");
  writeFileSync(short, Buffer.alloc(1500));
  expect(await readUuid(short)).toBeUndefined();
});

test("the kernel tells none of another file system, nor of what is not there", async () => {
  expect(await uuidMountedAt("/proc")).toBeUndefined();
  expect(await uuidMountedAt(join(directory, "missing"))).toBeUndefined();
});

test("a disk that hangs is not waited for, and its next reading takes no second thread", async () => {
  // Opening a pipe that nobody writes to hangs as a dead disk does. The pool has four threads.
  const pipe = join(directory, "pipe");
  execFileSync("mkfifo", [pipe]);
  const asked = Promise.all(Array.from({ length: 8 }, () => readUuid(pipe)));
  // This loop turns meanwhile: a call that waited for the pipe on its thread would never come back.
  for (let turns = 0; turns < 10; turns += 1) await turn();
  await vi.advanceTimersByTimeAsync(100);
  expect(await asked).toEqual(Array.from({ length: 8 }, () => undefined));
  expect(await readUuid(device("other", () => undefined))).toBeDefined();
  await (await open(pipe, "w")).close();
});
