/** The file medium behaves as an array of bytes, on tmpfs (synchronously) and elsewhere, and over a reopening. */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { MediumDone } from "../../hal/shelf/disk/medium.ts";
import { FileMedium } from "../../hal/shelf/target/files.ts";

const SIZE = 256 * 1024;
const span = fc
  .record({ offset: fc.nat({ max: SIZE - 1 }), bytes: fc.nat({ max: 100_000 }) })
  .map(({ offset, bytes }) => ({ offset, bytes: Math.min(bytes, SIZE - offset) }));
const operation = fc.oneof(
  fc.record({ do: fc.constant("write" as const), span, fill: fc.integer({ min: 1, max: 255 }) }),
  fc.record({ do: fc.constant("zero" as const), span }),
  fc.record({ do: fc.constant("reopen" as const) }),
);

const done = (call: (done: MediumDone) => void): Promise<void> =>
  new Promise((resolve, reject) => call((error) => (error === null ? resolve() : reject(error))));

const places = [tmpdir(), "/dev/shm"].filter((place) => existsSync(place));

describe.each(places)("in %s", (place) => {
  let folder = "";
  beforeEach(() => {
    folder = mkdtempSync(join(place, "dyad-medium-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  test("any writes, zeros and reopenings", async () => {
    let round = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 12 }), async (operations) => {
        const path = join(folder, `medium-${round++}`);
        const model = Buffer.alloc(SIZE);
        let medium = new FileMedium(path, SIZE);
        for (const step of operations) {
          if (step.do === "reopen") {
            medium.close();
            medium = new FileMedium(path, SIZE);
            continue;
          }
          const { offset, bytes } = step.span;
          const fill = step.do === "write" ? step.fill : 0;
          model.fill(fill, offset, offset + bytes);
          if (step.do === "zero") await done((end) => medium.zero(offset, bytes, end));
          else await done((end) => medium.write(offset, Buffer.alloc(bytes, fill), end));
        }
        const seen = Buffer.alloc(SIZE, 0xee);
        await done((end) => medium.read(0, seen, end));
        await done((end) => medium.flush(end));
        medium.close();
        expect(seen.equals(model)).toBe(true);
        rmSync(path);
      }),
      { numRuns: 60 },
    );
  });

  test("a file that is cut short shows as an error, not as zeros", async () => {
    const path = join(folder, "short");
    const medium = new FileMedium(path, SIZE);
    const other = new FileMedium(path, 4096);
    const read = done((end) => medium.read(8192, Buffer.alloc(512), end));
    await expect(read).rejects.toThrow(/short/);
    medium.close();
    other.close();
  });

  test("a path that cannot be opened names file and cause", () => {
    const path = join(folder, "none", "file");
    expect(() => new FileMedium(path, SIZE)).toThrow(/open backing file .*none.file: ENOENT/);
  });
});
