/** A mirror on real files, with its partner in a process of its own that is killed under load; its clients are other people's programs. */
import { createHash, randomBytes } from "node:crypto";
import { readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FileDevice } from "../../hal/block/file-device.ts";
import { MirrorDevice } from "../../hal/block/mirror/mirror-device.ts";
import { Resync, verify } from "../../hal/block/mirror/resync.ts";
import { NbdServer } from "../../hal/block/nbd-server.ts";
import { RemoteDevice } from "../../hal/block/remote/remote-device.ts";
import { freePort } from "../support/free-port.ts";
import { limitsMs } from "../support/limits.ts";
import { MemoryActivity, MemoryDirty } from "../support/mirror-ports.ts";
import { until } from "../support/until.ts";
import { fio, must, nbdUri, newFolder } from "./block-lab.ts";
import { Partner } from "./partner.ts";

const sizeBytes = 64 * 1024 * 1024;
const hash = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");

/** A mirror that is served, and whoever decides about its partner. */
class Served {
  readonly folder: string;
  readonly partner: Partner;
  readonly dirty = new MemoryDirty(sizeBytes, 64 * 1024);
  readonly server = new NbdServer();
  readonly local: FileDevice;
  readonly remote: RemoteDevice;
  readonly mirror: MirrorDevice;
  losses = 0;
  /** Carried out when the partner is there again. */
  onUp: (session: number) => Promise<unknown> = async () => {};

  private constructor(folder: string, partner: Partner, local: FileDevice, remote: RemoteDevice) {
    this.folder = folder;
    this.partner = partner;
    this.local = local;
    this.remote = remote;
    const made = MirrorDevice.create({
      ...{ local, remote, sizeBytes, blockSizeBytes: 512, dirty: this.dirty },
      activity: new MemoryActivity(4 * 1024 * 1024),
      handlers: {
        legLost: () => {
          this.losses += 1;
        },
      },
    });
    if (!made.ok) throw new Error(made.fault.message);
    this.mirror = made.value;
  }

  static async start(folder: string, transport: "unix" | "tcp"): Promise<Served> {
    const [here, there] = [join(folder, "local.img"), join(folder, "remote.img")];
    for (const file of [here, there]) {
      await writeFile(file, "");
      await truncate(file, sizeBytes);
    }
    const tcp = { host: "127.0.0.1", port: await freePort() };
    const address = transport === "tcp" ? tcp : { path: join(folder, "partner") };
    const partner = new Partner(there, address);
    await partner.start();
    const local = await FileDevice.open(here, { blockSizeBytes: 512 });
    let served: Served | undefined;
    const handlers = {
      down: (reason: string) => served?.mirror.lose("remote", reason),
      up: (session: number) => void served?.onUp(session),
    };
    const options = partner.options({ handlers, limits: { connections: 2 } });
    const remote = await RemoteDevice.open(options, limitsMs.condition);
    if (!local.ok || !remote.ok) throw new Error("no legs");
    served = new Served(folder, partner, local.value, remote.value);
    served.server.add({ name: "volume", device: served.mirror });
    const listening = await served.server.listen({ path: join(folder, "nbd") });
    if (!listening.ok) throw new Error(listening.fault.message);
    return served;
  }

  get uri(): string {
    return nbdUri(join(this.folder, "nbd"), "volume");
  }

  async stop(): Promise<void> {
    this.onUp = async () => {};
    await this.server.close();
    await this.mirror.close();
    await this.remote.close();
    await this.local.close();
    await this.partner.kill();
  }

  async hashes(): Promise<string[]> {
    return [
      hash(await readFile(join(this.folder, "local.img"))),
      hash(await readFile(this.partner.file)),
    ];
  }

  /** Takes the partner back as it is, once it is up. */
  takeBack = async (session: number): Promise<void> => {
    if (!this.remote.grant(session).ok) return;
    const back = await this.mirror.legBack("remote");
    // It may have been killed again meanwhile; then its next session is taken back.
    if (!back.ok) expect(this.mirror.status.legs.remote).toBe("lost");
  };
}

let folder: string;
let served: Served | undefined;

beforeEach(async () => {
  folder = await newFolder();
});
afterEach(async () => {
  await served?.stop();
  served = undefined;
  await rm(folder, { recursive: true, force: true });
});

describe.each(["unix", "tcp"] as const)("a mirror whose partner is reached by %s", (transport) => {
  test("nbdcopy moves an image in and out, and both replicas are it", async () => {
    served = await Served.start(folder, transport);
    const data = randomBytes(sizeBytes);
    await writeFile(join(folder, "in"), data);
    await must("nbdcopy", "--flush", "--connections=4", join(folder, "in"), served.uri);
    await must("nbdcopy", "--connections=4", served.uri, join(folder, "out"));
    expect(hash(await readFile(join(folder, "out")))).toBe(hash(data));
    expect(await served.hashes()).toEqual([hash(data), hash(data)]);
  });

  test("qemu-io writes, zeroes and discards on both", async () => {
    served = await Served.start(folder, transport);
    const out = await must(
      ...["qemu-io", "-f", "raw"],
      ...["-c", "write -P 0xa5 0 3M", "-c", "write -f -P 0x5a 1M 64k", "-c", "write -z 512k 256k"],
      ...["-c", "discard 2M 512k", "-c", "flush", "-c", "read -P 0x5a 1M 64k", served.uri],
    );
    expect(out).not.toMatch(/fail|error/i);
    const [here, there] = await served.hashes();
    expect(here).toBe(there);
  });

  test("the partner is killed under load and taken back: clients see a pause, and no error", async () => {
    const one = await Served.start(folder, transport);
    served = one;
    one.onUp = one.takeBack;
    const load = fio(
      one.uri,
      ...["--rw=randwrite", "--bsrange=512-64k", "--iodepth=16"],
      ...[`--size=${sizeBytes}`, "--io_size=192M", "--verify=crc32c", "--verify_fatal=1"],
    );
    let ended = false;
    void load.then(() => {
      ended = true;
    });
    let kills = 0;
    while (!ended && kills < 5) {
      await until("clients write", () => ended || one.mirror.status.active > 0);
      await one.partner.kill();
      await until("the mirror holds", () => ended || one.mirror.status.legs.remote === "lost");
      kills += 1;
      await one.partner.start();
      await until("it is taken back", () => one.mirror.status.legs.remote === "inSync");
    }
    const ran = await load;
    expect(ran.out).toMatch(/err= 0/);
    expect(ran.code).toBe(0);
    expect(one.losses).toBeGreaterThan(0);
    expect((await one.mirror.flush()).ok).toBe(true);
    expect(one.dirty.dirtyBytes).toBe(0);
    const [here, there] = await one.hashes();
    expect(here).toBe(there);
  });

  test("the partner is killed under load, done without, and resynced while clients write", async () => {
    const one = await Served.start(folder, transport);
    served = one;
    const load = fio(
      one.uri,
      ...["--rw=randwrite", "--bs=4k", "--iodepth=8", `--size=${sizeBytes}`],
      ...["--io_size=96M", "--verify=crc32c", "--verify_fatal=1"],
    );
    await until("clients write", () => one.mirror.status.active > 0);
    await one.partner.kill();
    await until("the mirror holds", () => one.mirror.status.legs.remote === "lost");
    expect((await one.mirror.continueWithout("remote")).ok).toBe(true);
    await until("something is dirty", () => one.dirty.dirtyBytes > 0);
    await one.partner.start();
    expect(await one.remote.whenUp(limitsMs.condition)).toBe(true);
    expect(one.remote.grant(one.remote.status.session).ok).toBe(true);
    expect((await one.mirror.attach("remote", one.remote)).ok).toBe(true);
    const resync = new Resync({ mirror: one.mirror, dirty: one.dirty });
    expect(await resync.run()).toBe("complete");
    expect(resync.progress.copiedBytes).toBeGreaterThan(0);
    expect(one.mirror.joined("remote").ok).toBe(true);
    const ran = await load;
    expect(ran.out).toMatch(/err= 0/);
    expect(ran.code).toBe(0);
    expect(await verify(one.mirror, { pieceBytes: 1024 * 1024 })).toEqual({
      ...{ comparedBytes: sizeBytes, differentBytes: 0, differences: [], complete: true },
    });
    expect((await one.mirror.flush()).ok).toBe(true);
    const [here, there] = await one.hashes();
    expect(here).toBe(there);
  });
});
