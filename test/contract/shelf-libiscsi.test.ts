/**
 * Third parties judge the shelf: libiscsi's conformance suite, its tools, and QEMU's initiator.
 * What the suite cannot pass or skips is listed here by name with its reason; everything else must pass.
 */
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { newFolder, run, type ShelfProcess, startProcess } from "../support/shelf-process.ts";

const TARGET = "iqn.2026-11.dyad:shelf";
const MEBIBYTE = 1024 * 1024;
const folder = newFolder();
let shelf: ShelfProcess;
let url: string;

beforeAll(async () => {
  shelf = await startProcess(
    {
      listen: { port: 0 },
      disks: [
        {
          serial: "CONTRACT-1",
          lun: 1,
          sizeBytes: 64 * MEBIBYTE,
          backingFile: join(folder.path, "disk1"),
          aptplFile: join(folder.path, "disk1.aptpl"),
        },
        { serial: "CONTRACT-4K", lun: 2, sizeBytes: 64 * MEBIBYTE, blockBytes: 4096 },
      ],
    },
    folder.path,
  );
  url = `iscsi://127.0.0.1:${shelf.port}/${TARGET}`;
});

afterAll(async () => {
  expect(await shelf.end("SIGTERM")).toBe(0);
  expect(shelf.stderr()).toBe("");
  folder.remove();
});

interface CuResult {
  readonly name: string;
  readonly outcome: "passed" | "skipped" | "failed";
  readonly text: string;
}

/** Reads iscsi-test-cu's verbose output: a test's line begins with its name and ends, some lines later, in its outcome. */
const parseCu = (output: string): CuResult[] => {
  const results: CuResult[] = [];
  let suite = "";
  let name: string | null = null;
  let text = "";
  for (const line of output.split("\n")) {
    const suiteName = /^Suite: (\S+)/.exec(line)?.[1];
    if (suiteName !== undefined) suite = suiteName;
    const testName = /^ {2}Test: (\S+) \.\.\./.exec(line)?.[1];
    if (testName !== undefined) {
      name = `${suite}.${testName}`;
      text = "";
    }
    text += `${line}\n`;
    if (name === null || !/(passed|FAILED)$/.test(line)) continue;
    const isSkipped = /SKIPPED|does not support 0-blocks/.test(text);
    const passed = isSkipped ? "skipped" : "passed";
    results.push({ name, outcome: line.endsWith("FAILED") ? "failed" : passed, text });
    name = null;
  }
  return results;
};

const conformance = async (
  family: string,
  lun: number,
  more: readonly string[] = [],
): Promise<CuResult[]> => {
  const args = ["--dataloss", "--verbose", `--test=${family}`, `${url}/${lun}`, ...more];
  const { output } = await run("iscsi-test-cu", args, { cwd: folder.path });
  const results = parseCu(output);
  const total = /^ +tests +(\d+) +(\d+)/m.exec(output);
  // The parser must have seen each test that the suite says it ran.
  expect([results.length, results.length]).toEqual([Number(total?.[1]), Number(total?.[2])]);
  return results;
};

const named = (results: readonly CuResult[], outcome: CuResult["outcome"]) =>
  results.filter((result) => result.outcome === outcome).map(({ name }) => name);

/** Optional commands that no part of the appliance sends (SPC-4 and SBC-3 mark them optional). */
const notOffered =
  /^(ExtendedCopy|ReceiveCopyResults|GetLBAStatus|OrWrite|ReadDefectData1[02]|Sanitize|WriteAtomic16|WriteVerify1[026])\./;
/** Questions to removable or write-protected media, which the disks are not; and SPC-2's RESERVE, obsolete in SPC-4. */
const notApplicable = /^(PreventAllow|Reserve6|ReadOnly|NoMedia)\.|^StartStopUnit\.Simple$/;
const reasons: Readonly<Record<string, string>> = {
  "WriteSame10.ZeroBlocks": "WSNZ is set: no blocks is no way to say all (SBC-3 6.5.3)",
  "WriteSame16.ZeroBlocks": "as above",
  "WriteSame10.UnmapUntilEnd": "as above",
  "WriteSame16.UnmapUntilEnd": "as above",
  "ReportSupportedOpcodes.OneCommand":
    "libiscsi 1.19 takes INVALID FIELD IN CDB, which it expects and SPC-4 6.35 asks for, as 'not implemented'",
};
const isExcused = (name: string) =>
  notOffered.test(name) || notApplicable.test(name) || reasons[name] !== undefined;

/** Those that the appliance depends on: none of their tests may be skipped but for a reason above. */
const required =
  /^(Prin\w+|Prout\w+|Read(6|10|12|16)|ReadCapacity1[06]|Write(10|12|16)|CompareAndWrite|WriteSame1[06]|Unmap|Inquiry|TestUnitReady|Mandatory|ModeSense6|Prefetch1[06]|Verify1[026])\./;

/** How many tests those suites have in libiscsi 1.19, the excused ones not counted. */
const REQUIRED_TESTS = 129;

test("iscsi-test-cu, SCSI: nothing fails, and only what is excused is skipped", async () => {
  const results = await conformance("SCSI", 1);
  expect(results.filter(({ outcome }) => outcome === "failed").map(({ text }) => text)).toEqual([]);
  const skipped = named(results, "skipped").filter((name) => !name.startsWith("MultipathIO."));
  expect(skipped.filter((name) => !isExcused(name))).toEqual([]);
  const passed = named(results, "passed");
  expect(passed.filter((name) => /^(Prin|Prout)/.test(name)).length).toBe(20);
  expect(passed.filter((name) => required.test(name)).length).toBe(REQUIRED_TESTS);
});

test("iscsi-test-cu, blocks of 4096 bytes", async () => {
  // Its tests of access under reservations and of asynchronous writes assume blocks of 512 bytes.
  const suites = ["CompareAndWrite", "Read16", "ReadCapacity16", "Unmap", "WriteSame16"];
  const results = await conformance(suites.map((suite) => `SCSI.${suite}`).join(","), 2);
  expect(named(results, "failed")).toEqual([]);
  expect(named(results, "passed").length).toBeGreaterThan(20);
});

test("iscsi-test-cu over two sessions", async () => {
  const results = await conformance("ALL.MultipathIO", 1, [`${url}/1`]);
  expect(named(results, "passed").length).toBe(4);
});

test("iscsi-test-cu, the transport", async () => {
  const results = await conformance("iSCSI", 1);
  // A write whose initiator announces less data than its CDB asks for is refused with INVALID FIELD IN COMMAND
  // INFORMATION UNIT, so that no half write is taken for a whole one. libiscsi accepts that since 1.20; 1.19 does not.
  const refused = ["Write10Residuals", "Write12Residuals", "Write16Residuals"];
  const failed = results.filter(({ outcome }) => outcome === "failed");
  expect(failed.map(({ name }) => name)).toEqual(refused.map((name) => `iSCSIResiduals.${name}`));
  for (const { text } of failed) {
    const lines = text.match(/test_\w+\.c:\d+ .*/g) ?? [];
    expect(lines.filter((line) => !/task->status|not written correctly/.test(line))).toEqual([]);
  }
  expect(named(results, "passed")).toEqual(
    expect.arrayContaining([
      "iSCSIcmdsn.iSCSICmdSnTooHigh",
      "iSCSIcmdsn.iSCSICmdSnTooLow",
      "iSCSIdatasn.iSCSIDataSnInvalid",
      "iSCSIResiduals.Read10Residuals",
      "iSCSITMF.AbortTaskSimpleAsync",
      "iSCSITMF.LUNResetSimpleAsync",
    ]),
  );
});

describe("libiscsi's tools", () => {
  test("iscsi-ls finds target and units", async () => {
    const { output } = await run("iscsi-ls", ["-s", `iscsi://127.0.0.1:${shelf.port}`]);
    expect(output).toContain(`Target:${TARGET} Portal:127.0.0.1:${shelf.port},1`);
    expect(output.match(/Lun:\d+ +Type:DIRECT_ACCESS/g)?.length).toBe(2);
  });

  test("iscsi-inq shows serial and identifier", async () => {
    const serial = await run("iscsi-inq", ["-e", "1", "-c", "128", `${url}/1`]);
    expect(serial.output).toContain("CONTRACT-1");
    const ids = await run("iscsi-inq", ["-e", "1", "-c", "131", `${url}/1`]);
    expect(ids.output).toContain("Designator Type:(3) NAA");
    expect(ids.output).toContain(`[${TARGET},t,0x0001]`);
  });

  test("iscsi-readcapacity16", async () => {
    const { output } = await run("iscsi-readcapacity16", [`${url}/2`]);
    expect(output).toContain("LOGICAL BLOCK LENGTH IN BYTES:4096");
    expect(output).toContain(`Total size:${64 * MEBIBYTE}`);
  });
});

describe("QEMU's initiator", () => {
  test("qemu-img copies an image to the disk and finds it equal", async () => {
    const image = join(folder.path, "image.raw");
    writeFileSync(image, randomBytes(64 * MEBIBYTE));
    const copy = ["convert", "-n", "-f", "raw", "-O", "raw", image, `${url}/1`];
    expect(await run("qemu-img", copy)).toEqual({ code: 0, output: "" });
    const compare = ["compare", "-f", "raw", "-F", "raw", image, `${url}/1`];
    expect((await run("qemu-img", compare)).output).toContain("Images are identical");
  });

  test("qemu-io writes, zeroes, discards and reads back", async () => {
    const commands = [
      "write -P 0x5a 0 1M",
      "write -z 256k 256k",
      "discard 768k 64k",
      "flush",
      "read -P 0x5a 0 256k",
      "read -P 0 256k 256k",
      "read -P 0x5a 512k 256k",
      "read -P 0 768k 64k",
    ];
    const args = ["-f", "raw", ...commands.flatMap((command) => ["-c", command]), `${url}/1`];
    const { code, output } = await run("qemu-io", args);
    expect([code, /failed|error/i.exec(output)]).toEqual([0, null]);
  });
});
