import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { readPairKey } from "../../hal/linux/pair-key.ts";

const folder = mkdtempSync(join(tmpdir(), "dyad-pair-key-"));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, content: string | Uint8Array, mode = 0o600): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  chmodSync(path, mode);
  return path;
}

describe("pair key file", () => {
  const key = Uint8Array.from({ length: 32 }, (_, i) => i + 1);
  const hex = Buffer.from(key).toString("hex");

  test.each([
    ["raw bytes", key],
    ["hexadecimal digits", hex],
    ["hexadecimal digits and a newline", `${hex}\n`],
    ["capital digits", hex.toUpperCase()],
  ])("%s", (name, content) => {
    expect(readPairKey(file(name, content))).toEqual({ ok: true, value: key });
  });

  test.each([0o640, 0o604, 0o620, 0o644, 0o601])("mode %o is refused", (mode) => {
    const outcome = readPairKey(file(`mode${mode}`, key, mode));
    expect(!outcome.ok && outcome.fault.code).toBe("refused");
    expect(!outcome.ok && outcome.fault.message).toContain(mode.toString(8));
  });

  test.each([
    ["empty", ""],
    ["too short", key.subarray(1)],
    ["too long", Uint8Array.of(...key, 1)],
    ["no digits", "g".repeat(64)],
    ["a digit too many", `${hex}0`],
    ["a megabyte", new Uint8Array(1 << 20)],
  ])("%s is refused", (name, content) => {
    const outcome = readPairKey(file(name, content));
    expect(!outcome.ok && outcome.fault.code).toBe("badInput");
  });

  test("a missing file and a folder are told apart", () => {
    const missing = readPairKey(join(folder, "missing"));
    expect(!missing.ok && missing.fault.code).toBe("ioError");
    mkdirSync(join(folder, "folder"), { mode: 0o700 });
    const directory = readPairKey(join(folder, "folder"));
    expect(!directory.ok && directory.fault.code).toBe("badInput");
  });
});
