/** `dyad volume dump` on images of coordinator disks. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { runCli } from "../../firmware-ts/cli/program.ts";
import {
  coordinatorBytesMin,
  encodeRecord,
  frontBytes,
  frontOffsetBytes,
  restOffsetBytes,
  type SlotIndex,
} from "../../firmware-ts/wire/common-volume.ts";
import { jsonLines } from "../support/json-lines.ts";
import { recordOf } from "../support/volume-records.ts";

const folder = mkdtempSync(join(tmpdir(), "dyad-volume-"));
afterAll(() => rmSync(folder, { recursive: true }));

const old = recordOf({ generation: 1, sequence: 1 });
const state = { mounts: ["/dev/loop0 /x ext4 rw"], routes: ["default via \u001b[2J"], devices: [] };
const fresh = recordOf({ generation: 2, sequence: 2, wanted: "stopped", state });

/** An image with these records of number 3 in its slots, and whatever `spoil` does to it. */
function image(
  name: string,
  records: readonly ReturnType<typeof recordOf>[],
  spoil = (_: Buffer) => {},
) {
  const bytes = Buffer.alloc(coordinatorBytesMin);
  records.forEach((record, index) => {
    const slot = encodeRecord(record, 17);
    if (!slot.ok) throw new Error(slot.fault.message);
    bytes.set(slot.value.subarray(0, frontBytes), frontOffsetBytes(3, index as SlotIndex));
    bytes.set(slot.value.subarray(frontBytes), restOffsetBytes(3, index as SlotIndex));
  });
  spoil(bytes);
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

async function dump(...words: string[]) {
  const ran = { code: -1, out: "", err: "" };
  ran.code = await runCli(["volume", "dump", ...words], {
    io: {
      out: (text) => {
        ran.out += text;
      },
      err: (text) => {
        ran.err += text;
      },
      interactive: false,
      colour: false,
      ask: async () => "",
    },
    defaultSocket: "/nonexistent",
    version: "1.2.3",
  });
  return ran;
}

describe("what a person reads", () => {
  test("is the newest record of all disks that are given", async () => {
    const behind = image("c1", [old]);
    const ahead = image("c2", [old, fresh]);
    expect(await dump(behind, ahead, image("c3", [old, fresh]))).toEqual({
      code: 0,
      err: "",
      out: [
        "3 alpha: stopped, change 2, home a; written by a at epoch 1, generation 2",
        "    address 10.0.0.100/24",
        "    volume d1 as /alpha",
        "    mount /dev/loop0 /x ext4 rw",
        "    route default via ?[2J",
        "",
      ].join("\n"),
    });
    const two = await dump(behind, ahead);
    expect(two.out).toContain("generation 2; on fewer than a majority\n");
  });

  test("may go on in the rest of its slot", async () => {
    const routes = new Array<string>(32).fill("r".repeat(200));
    const long = recordOf({ generation: 3, state: { mounts: [], routes, devices: [] } });
    const { out } = await dump(image("long", [old, long]));
    expect(out).toContain("generation 3\n");
    expect(out.split("\n").filter((line) => line.includes("route rrr"))).toHaveLength(32);
  });

  test("says what is no record", async () => {
    const torn = image("torn", [fresh], (bytes) =>
      bytes.fill(1, frontOffsetBytes(3, 0) + 600, frontOffsetBytes(3, 0) + 700),
    );
    const { out } = await dump(torn);
    expect(out).toContain("no records\n");
    expect(out).toContain(`trouble: ${torn}: slot 0 of number 3: torn or damaged\n`);
    expect((await dump(image("new", []))).out).toBe("no records\n");
  });
});

test("a program gets a line for each record, and one for the rest", async () => {
  const { out } = await dump(image("json", [old, fresh]), "-o", "json");
  expect(jsonLines(out)).toEqual([fresh, { thin: [], reserved: [], damaged: [] }]);
});

test("a disk that is too small, or is not there, is named", async () => {
  const small = join(folder, "small");
  writeFileSync(small, Buffer.alloc(1024 * 1024));
  expect(await dump(small)).toEqual({
    code: 1,
    out: "",
    err: `dyad: ${small}: too small for the common volume, which needs 2129920 bytes\n`,
  });
  const missing = await dump(join(folder, "missing"));
  expect([missing.code, missing.out]).toEqual([1, ""]);
  expect(missing.err).toContain("cannot be read: ENOENT");
  expect((await dump()).code).toBe(2);
});
