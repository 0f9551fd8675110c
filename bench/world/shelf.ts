/** The shelf of the bench: backing files in memory, the iSCSI target's process, and its faults. */
import { mkdirSync, truncateSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Cgroup } from "./cgroup.ts";
import { BenchError } from "./error.ts";
import { limitMs, run, waitFor } from "./exec.ts";
import { realTimeNode } from "./firmware.ts";
import { type Layout, repoDir, shelfAddress, shelfPort } from "./layout.ts";
import { coordinatorBytes, coordinators, planPaths, shelfTarget } from "./plan.ts";
import type { Processes, Started } from "./processes.ts";

/** Less would not hold the files of a few clients. */
const diskMbMin = 64;

/**
 * ext4 for a volume that is mounted often and must be mounted fast:
 *  lazy_itable_init=0, lazy_journal_init=0  no kernel thread writes behind our back after the first mount; those writes would
 *                       count against the first takeovers only
 *  -b 1024 -J size=1    a survivor reads the whole journal before it can serve. ext4 wants 1024 journal blocks at least, hence the small block
 *                       (mke2fs's own choice for volumes of this size), which is also the one that can be read ahead
 *                       (hal/linux/read-ahead.ts). `fast_commit` was tried: its replay took more than a second
 *  -N 4096              inode tables of a few hundred KiB instead of MiB, written out now
 *  -m 0                 no reserve for a root that does not log in here
 *  errors=remount-ro    a write error stops the volume; it must not go on with half a journal
 * No `mmp`: multiple mount protection waits 22 s and more after an unclean end, and the reservation already protects.
 */
const mkfsArgs = ["-q", "-F", "-b", "1024", "-J", "size=1", "-N", "4096", "-m", "0"].concat([
  ...["-e", "remount-ro"],
  "-E",
  "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
]);

/** Guests of SMB put their files into the root of the volume. The list of extended options is one. */
const forGuests = ["-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=65534:65534"];

/**
 * mkfs asks every loop device that is mounted anywhere whether it is ours, and that question hangs while the file behind the
 * device is served by a stopped process (a frozen controller, or somebody else's). So it runs where it finds no list of mounts.
 */
const mkfsScript = 'mount -t tmpfs tmpfs /proc; EXT2FS_NO_MTAB_OK=1 exec mkfs.ext4 "$@"';

function backingFile(layout: Layout, serial: string): string {
  return join(layout.baseDir, "disks", `${serial}.img`);
}

/** Makes the disks' files, file systems on the data disks, and the shelf's configuration; returns its path. */
export async function prepareShelf(layout: Layout, diskMb: number): Promise<string> {
  if (!Number.isInteger(diskMb) || diskMb < diskMbMin)
    throw new BenchError("badInput", "disk size", `expected at least ${diskMbMin} MiB`);
  const diskBytes = diskMb * 1024 * 1024;
  mkdirSync(join(layout.baseDir, "disks"), { recursive: true });
  const servers = [...layout.servers, ...layout.spares];
  const disks = [
    ...coordinators.map((serial) => ({ serial, sizeBytes: coordinatorBytes })),
    ...servers.map(({ disk }) => ({ serial: disk, sizeBytes: diskBytes })),
  ];
  for (const { serial, sizeBytes } of disks) {
    writeFileSync(backingFile(layout, serial), "");
    truncateSync(backingFile(layout, serial), sizeBytes);
  }
  await Promise.all(
    servers.map(({ disk, name, share }) =>
      run("unshare", [
        ...["--mount", "--propagation", "private", "sh", "-ec", mkfsScript, "mkfs"],
        ...[...mkfsArgs, "-L", name, ...(share === undefined ? [] : forGuests)],
        backingFile(layout, disk),
      ]),
    ),
  );
  const path = join(layout.baseDir, "shelf.json");
  const config = {
    listen: { host: shelfAddress, port: shelfPort },
    targets: [shelfTarget],
    disks: disks.map(({ serial, sizeBytes }, lun) => ({
      serial,
      lun,
      sizeBytes,
      backingFile: backingFile(layout, serial),
      aptplFile: `${backingFile(layout, serial)}.pr`,
      // As the disks of such arrays are run. Nothing that befalls the bench makes its backing files forget.
      writeCache: false,
    })),
    controlSocket: planPaths(layout).shelfControl,
  };
  writeFileSync(path, JSON.stringify(config, undefined, 2));
  return path;
}

/** Starts the shelf's process; settles when its control socket answers, which it does once it serves. */
export async function startShelf(
  layout: Layout,
  processes: Processes,
  cgroup: Cgroup,
  configPath: string,
): Promise<Shelf> {
  const started = processes.start({
    role: "shelf",
    cgroup,
    inside: layout.namespaces.shelf,
    // A shelf has processors of its own. Here it comes before whatever loads this machine, yet after the heartbeats (20).
    argv: realTimeNode(15, join(repoDir, "hal/shelf/main.ts"), configPath),
  });
  const shelf = new Shelf(planPaths(layout).shelfControl, started);
  await waitFor(
    "shelf",
    async () => {
      if (!started.alive())
        throw new BenchError("worldBroken", "shelf", `ended: see ${processes.logPath("shelf")}`);
      await shelf.command({ status: true });
      return true;
    },
    { deadlineMs: limitMs, intervalMs: 10 },
  );
  return shelf;
}

/** The shelf's control socket: one JSON line asks, one answers. */
export class Shelf {
  readonly #socketPath: string;
  readonly process: Started;

  constructor(socketPath: string, process: Started) {
    this.#socketPath = socketPath;
    this.process = process;
  }

  /** Sends a command and returns the answer; throws when the shelf refuses it. */
  command(request: object): Promise<Record<string, unknown>> {
    return new Promise((resolve, reject) => {
      const socket = createConnection(this.#socketPath);
      const fail = (cause: unknown) => {
        socket.destroy();
        reject(new BenchError("worldBroken", "shelf control", JSON.stringify(request), cause));
      };
      socket.setTimeout(limitMs, () => fail(new Error("no answer")));
      socket.once("error", fail);
      const lines = createInterface({ input: socket });
      // readline repeats the errors of its input as its own.
      lines.once("error", fail);
      lines.once("line", (line) => {
        socket.end();
        const answer = JSON.parse(line) as Record<string, unknown>;
        if (answer.ok === false) fail(new Error(line));
        else resolve(answer);
      });
      socket.write(`${JSON.stringify(request)}\n`);
    });
  }
}
