/** The file device: what it writes is what is there, in both ways of doing I/O. */
import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FileDevice, type FileDeviceOptions } from "../../hal/block/file-device.ts";

const sizeBytes = 64 * 1024;
let folder: string;
let path: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "dyad-file-"));
  path = join(folder, "image");
  await writeFile(path, Buffer.alloc(sizeBytes));
});
afterEach(() => rm(folder, { recursive: true }));

async function open(options: FileDeviceOptions = {}): Promise<FileDevice> {
  const opened = await FileDevice.open(path, options);
  if (!opened.ok) throw new Error(opened.fault.message);
  return opened.value;
}

const operation = fc.oneof(
  fc.record({
    op: fc.constant("write" as const),
    at: fc.nat(120),
    blocks: fc.nat(8),
    fill: fc.nat(255),
  }),
  fc.record({
    op: fc.constant("zero" as const),
    at: fc.nat(120),
    blocks: fc.nat(8),
    fill: fc.nat(1),
  }),
);

describe.each(["threads", "inline"] as const)("file device, I/O in %s", (io) => {
  test("behaves as an array of bytes", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 12 }), async (operations) => {
        const device = await open({ io, blockSizeBytes: 512 });
        const model = await readFile(path);
        for (const { op, at, blocks, fill } of operations) {
          const [offset, length] = [at * 512, blocks * 512];
          const outcome =
            op === "write"
              ? await device.write(offset, Buffer.alloc(length, fill), { fua: fill % 2 === 0 })
              : await device.writeZeroes(offset, length, { fua: false, mayTrim: fill === 1 });
          expect(outcome.ok).toBe(offset + length <= sizeBytes);
          if (outcome.ok) model.fill(op === "write" ? fill : 0, offset, offset + length);
        }
        const read = await device.read(0, sizeBytes);
        expect(read.ok && read.value.equals(model)).toBe(true);
        await device.close();
        expect((await readFile(path)).equals(model)).toBe(true);
      }),
      { numRuns: 25 },
    );
  });

  test("a trimmed range reads as anything, its neighbours as before", async () => {
    const device = await open({ io });
    await device.write(0, Buffer.alloc(sizeBytes, 7), { fua: false });
    expect(await device.trim(8192, 4096)).toMatchObject({ ok: true });
    const read = await device.read(0, sizeBytes);
    if (!read.ok) throw new Error("read");
    expect(read.value.subarray(0, 8192).every((byte) => byte === 7)).toBe(true);
    expect(read.value.subarray(12_288).every((byte) => byte === 7)).toBe(true);
    await device.close();
  });

  test("a file cut short behind the device's back is an error, not data", async () => {
    const device = await open({ io });
    await truncate(path, 4096);
    expect(await device.read(0, 8192)).toMatchObject({ ok: false, fault: { code: "ioError" } });
    await device.close();
  });

  test("closing waits for what is under way and refuses what follows", async () => {
    const device = await open({ io });
    const writing = device.write(0, Buffer.alloc(4096, 9), { fua: true });
    await device.close();
    await writing;
    await device.close();
    const late = await device.write(0, Buffer.alloc(1), { fua: false });
    expect(late).toMatchObject({ ok: false, fault: { code: "refused" } });
    expect(await device.flush()).toMatchObject({ ok: false, fault: { code: "refused" } });
  });
});

test("what is no file is refused", async () => {
  const notFound = await FileDevice.open(join(folder, "nothing"));
  expect(notFound).toMatchObject({ ok: false, fault: { code: "ioError" } });
  expect(await FileDevice.open(folder)).toMatchObject({ ok: false });
});
