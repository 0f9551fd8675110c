/** The NBD server over a file, judged by other people's clients: libnbd, QEMU, fio. */
import { createHash, randomBytes } from "node:crypto";
import { readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FileDevice } from "../../hal/block/file-device.ts";
import { NbdServer } from "../../hal/block/nbd-server.ts";
import { fio, must, nbdUri, newFolder, run } from "./block-lab.ts";

const sizeBytes = 64 * 1024 * 1024;

describe.each(["threads", "inline"] as const)("NBD over a file, I/O in %s", (io) => {
  let folder: string;
  let server: NbdServer;
  let device: FileDevice;
  let uri: string;
  let tcpUri: string;
  const path = () => join(folder, "disk.img");

  beforeAll(async () => {
    folder = await newFolder();
    await writeFile(path(), "");
    await truncate(path(), sizeBytes);
    const opened = await FileDevice.open(path(), { io });
    if (!opened.ok) throw new Error(opened.fault.message);
    device = opened.value;
    server = new NbdServer();
    server.add({ name: "disk", device, description: "a test's disk" });
    server.add({ name: "locked", device, readOnly: true });
    await server.listen({ path: join(folder, "nbd") });
    uri = nbdUri(join(folder, "nbd"), "disk");
    const tcp = await server.listen({ host: "127.0.0.1", port: 0 });
    if (!tcp.ok || !("port" in tcp.value)) throw new Error("no TCP port");
    tcpUri = `nbd://127.0.0.1:${tcp.value.port}/disk`;
  });
  afterAll(async () => {
    await server.close();
    await device.close();
    await rm(folder, { recursive: true });
  });

  test("nbdinfo sees size and abilities, and lists the exports", async () => {
    for (const one of [uri, tcpUri]) {
      const [info] = JSON.parse(await must("nbdinfo", "--json", "--no-content", one)).exports;
      expect(info).toMatchObject({
        "export-name": "disk",
        description: "a test's disk",
        "export-size": sizeBytes,
        is_read_only: false,
        can_cache: true,
        can_df: true,
        can_flush: true,
        can_fua: true,
        can_multi_conn: true,
        can_trim: true,
        can_zero: true,
        block_size_minimum: 1,
        block_size_maximum: 32 * 1024 * 1024,
      });
    }
    const list = JSON.parse(await must("nbdinfo", "--list", "--json", "--no-content", uri));
    expect(list).toMatchObject({ protocol: "newstyle-fixed", structured: true });
    const names = list.exports.map((one: { "export-name": string }) => one["export-name"]);
    expect(names).toEqual(["disk", "locked"]);
    expect((await run("nbdinfo", nbdUri(join(folder, "nbd"), "nothing"))).code).not.toBe(0);
  });

  test("qemu-io writes, zeroes, discards and reads back patterns", async () => {
    const out = await must(
      "qemu-io",
      ...["-f", "raw"],
      ...["-c", "write -P 0xa5 0 3M", "-c", "read -P 0xa5 0 3M"],
      ...["-c", "write -f -P 0x5a 1001k 10k", "-c", "read -P 0x5a 1001k 10k"],
      ...["-c", "write -z 512k 256k", "-c", "read -P 0 512k 256k"],
      ...["-c", "write -z -u 1M 1M", "-c", "read -P 0 1M 1M"],
      ...["-c", "discard 2M 512k", "-c", "flush", "-c", "read -P 0xa5 0 512k"],
      uri,
    );
    expect(out).not.toMatch(/fail|error/i);
    const content = await readFile(path());
    expect(content.subarray(0, 4)).toEqual(Buffer.alloc(4, 0xa5));
    expect(content.subarray(512 * 1024, 768 * 1024).every((byte) => byte === 0)).toBe(true);
  });

  test("a read-only export refuses writers", async () => {
    const locked = nbdUri(join(folder, "nbd"), "locked");
    const ran = await run("qemu-io", "-f", "raw", "-c", "write 0 4k", locked);
    expect(ran.out).toMatch(/read-only|not permitted|denied/i);
  });

  test("nbdcopy moves an image in and out over several connections", async () => {
    const data = randomBytes(sizeBytes);
    await writeFile(join(folder, "in"), data);
    await must("nbdcopy", "--connections=4", join(folder, "in"), uri);
    await must("nbdcopy", "--connections=4", tcpUri, join(folder, "out"));
    const hash = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");
    expect(hash(await readFile(join(folder, "out")))).toBe(hash(data));
  });

  test.each([
    ["small random writes", "--rw=randwrite", "--bs=4k", "--iodepth=16"],
    ["odd sizes, mixed", "--rw=randrw", "--bsrange=512-96k", "--bs_unaligned=1", "--iodepth=8"],
    ["large writes", "--rw=write", "--bs=1M", "--iodepth=4"],
  ])("fio verifies %s", async (_, ...options) => {
    for (const one of io === "threads" ? [uri, tcpUri] : [uri]) {
      const ran = await fio(
        one,
        ...options,
        `--size=${sizeBytes / 8}`,
        "--verify=crc32c",
        "--verify_fatal=1",
      );
      expect(ran.out).toMatch(/err= 0/);
      expect(ran.code).toBe(0);
    }
  });
});
