/**
 * What the tests of the SMB service stand on: a controller with places of its own, a client on its wire, volumes that are mounted where a controller
 * mounts them, and `smbclient`.
 */
import { mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import { silenceAll } from "../../hal/bench/places.ts";
import { startProved } from "../../hal/bench/service-part.ts";
import { PlacesFolder } from "../../hal/linux/place/folder.ts";
import { Place, placeNic } from "../../hal/linux/place/place.ts";
import { programsOf } from "../../hal/linux/place/programs.ts";
import type { SmbService, SmbServiceSpec } from "../../hal/linux/samba/config.ts";
import { createSamba, parseSmbService } from "../../hal/linux/samba.ts";
import type { ServiceDriver } from "../../hal/linux/service-driver.ts";
import type { ProcessEnd } from "../../hal/linux/service-process.ts";
import { limitsMs } from "../support/limits.ts";
import { must, type Ran, run as ranTo } from "./block-lab.ts";
import { carrierIn } from "./support/carrier.ts";
import { makeLoopFolder, removeLoopFolder } from "./support/loop-folder.ts";
import { joinedNamespaces, type Namespace, run } from "./support/namespaces.ts";

export const value = <T>(outcome: Outcome<T>): T => {
  if (!outcome.ok) throw new Error(JSON.stringify(outcome.fault));
  return outcome.value;
};

/** One virtual server of the controller. */
export interface SmbNode {
  readonly name: string;
  readonly address: string;
  readonly place: Place;
  readonly samba: ServiceDriver<SmbService>;
  readonly ends: (ProcessEnd & { readonly expected: boolean })[];
  readonly hung: string[];
  readonly log: string[];
  /** Where the controller mounts a disk. */
  mountPoint(disk: string): string;
  /** One share, `data`, on disk `d1`, for guests, unless it is said otherwise. */
  service(change?: Partial<SmbServiceSpec>): SmbService;
  /** Starts it and waits until it answers. */
  serve(change?: Partial<SmbServiceSpec>): Promise<void>;
  stop(): Promise<void>;
  /** Every process in its network. */
  processes(): number[];
}

export interface SmbLab {
  readonly folder: string;
  readonly runDir: string;
  readonly controller: Namespace;
  readonly client: Namespace;
  addNode(name: string, address: string): Promise<SmbNode>;
  /** A file with an ext4 file system in it, whose root belongs to the guests. */
  makeVolume(name: string): string;
  /** Commands of smbclient, one after another; with a name and a password, or as nobody in particular. */
  smb(address: string, commands: string, options?: SmbOptions): Promise<Ran>;
  /** What a survivor would find of a file if the controller died now; undefined when there is no such file. */
  afterCrash(image: string, file: string): Promise<Buffer | undefined>;
  close(): Promise<void>;
}

export interface SmbOptions {
  readonly share?: string;
  /** `name%password` */
  readonly user?: string;
  /** Where files of the client are. */
  readonly folder?: string;
}

export function openSmbLab(): SmbLab {
  const folder = makeLoopFolder();
  const [controller, client] = joinedNamespaces(["smb", "peer"]);
  client.ip("address", "add", "10.6.0.1/24", "dev", "wire0");
  const places = new PlacesFolder(join(folder, "places"));
  value(places.prepare());
  // In memory, as on a controller: what smbd keeps there it writes without a thought for the disk.
  const runDir = `/dev/shm/${folder.split("/").at(-1)}`;
  const nodes: SmbNode[] = [];
  return {
    folder,
    runDir,
    controller,
    client,
    async addNode(name, address) {
      value(places.make(name));
      const node = makeNode({ name, address, folder, runDir, controller, places, nodes });
      nodes.push(node);
      value(await node.place.addresses.add(placeNic, address, 24));
      return node;
    },
    makeVolume(name) {
      const image = join(folder, `${name}.img`);
      run("truncate", "-s", "128M", image);
      run("mkfs.ext4", "-q", "-F", "-E", "root_owner=65534:65534", image);
      return image;
    },
    smb(address, commands, { share = "data", user, folder: at = folder } = {}) {
      const who = user === undefined ? ["-N"] : ["-U", user];
      const words = [`//${address}/${share}`, ...who, "-c", commands];
      const inside = [
        `--net=/run/netns/${client.name}`,
        "sh",
        "-c",
        'cd "$0" && exec smbclient "$@"',
      ];
      return ranTo("nsenter", ...inside, at, ...words);
    },
    async afterCrash(image, file) {
      const copy = join(folder, "crashed.img");
      const found = join(folder, "crashed.found");
      await must("cp", image, copy);
      // Replays the journal, as the survivor's mount does; 1 says that it had to.
      await must("sh", "-c", 'e2fsck -fp "$0" || [ $? = 1 ]', copy);
      rmSync(found, { force: true });
      const said = await must("debugfs", "-R", `dump /${file} ${found}`, copy);
      return said.includes("File not found") ? undefined : readFileSync(found);
    },
    async close() {
      for (const node of nodes) {
        value(await node.samba.close(limitsMs.condition));
        await node.place.remove();
      }
      await silenceAll(join(folder, "networks"), () => true);
      await unmountAll(folder);
      removeLoopFolder(folder);
      rmSync(runDir, { recursive: true, force: true });
      await controller.remove();
      await client.remove();
    },
  };
}

async function unmountAll(folder: string): Promise<void> {
  const mounts = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  const paths = mounts.flatMap((line) => line.split(" ")[4] ?? []);
  for (const path of paths.toReversed()) if (path.startsWith(folder)) await must("umount", path);
}

interface NodeParts {
  readonly name: string;
  readonly address: string;
  readonly folder: string;
  readonly runDir: string;
  readonly controller: Namespace;
  readonly places: PlacesFolder;
  readonly nodes: readonly SmbNode[];
}

function makeNode({ name, address, folder, runDir, controller, places, nodes }: NodeParts) {
  const spec = {
    name,
    carrier: carrierIn(controller, "wire0"),
    mac: Uint8Array.of(2, 0xdd, 0, 0, 0, nodes.length + 1),
    holdPath: join(folder, "networks", name),
  };
  const place = value(controller.inside(() => Place.open(spec)));
  const ends: SmbNode["ends"] = [];
  const hung: string[] = [];
  const log: string[] = [];
  const samba = createSamba({
    name,
    runDir,
    place: programsOf(place, places, name),
    log: (message) => log.push(message),
    onEnd: (end) => ends.push(end),
    onHung: (reason) => hung.push(reason),
  });
  const service: SmbNode["service"] = (change = {}) =>
    value(
      parseSmbService({
        name,
        workgroup: "WORKGROUP",
        addresses: [address],
        guest: true,
        users: [],
        writeThrough: true,
        shares: [{ name: "data", path: "/srv/d1", shared: false }],
        passwordFile: "/srv/d1/.dyad/smb/smbpasswd",
        ...change,
      }),
    );
  const node: SmbNode = {
    name,
    address,
    place,
    samba,
    ends,
    hung,
    log,
    mountPoint(disk) {
      const path = join(folder, "places", name, disk);
      mkdirSync(path, { recursive: true });
      return path;
    },
    service,
    async serve(change) {
      value(await startProved(samba, service(change), limitsMs.condition, () => undefined));
    },
    async stop() {
      samba.kill();
      value(await samba.stop(limitsMs.condition));
    },
    processes: () => processesOf(place.inside(() => readlinkSync("/proc/thread-self/ns/net"))),
  };
  return node;
}

function processesOf(network: string): number[] {
  return readdirSync("/proc").flatMap((name) => {
    try {
      const isHere = /^\d+$/.test(name) && readlinkSync(`/proc/${name}/ns/net`) === network;
      return isHere ? [Number(name)] : [];
    } catch {
      return []; // It ended between the listing and the look.
    }
  });
}
