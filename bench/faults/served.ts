/** Faults that befall the first virtual server of a controller and nothing else there: hang, address, readonly. */
import { readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { parseMountTable } from "../../hal/linux/mount-table.ts";
import { placeNic } from "../../hal/linux/place/place.ts";
import { BenchError } from "../world/error.ts";
import { run } from "../world/exec.ts";
import type { PlannedServer } from "../world/layout.ts";
import { startTicksOf } from "../world/ledger.ts";
import { signal } from "../world/processes.ts";
import type { World } from "../world/world.ts";
import type { Fault } from "./fault.ts";
import { byItself, fileServers, servingOn } from "./processes.ts";

/** The first virtual server that a controller serves. Throws `worldBroken` when there is none. */
async function firstOn(world: World, victim: ControllerId, fault: string): Promise<PlannedServer> {
  const names = await servingOn(world, victim);
  const first = world.layout.servers.find(({ name }) => names.includes(name));
  if (first) return first;
  throw new BenchError("worldBroken", fault, `nothing is served on ${victim}`);
}

export const hang: Fault = {
  name: "hang",
  description: "the file server of the first virtual server there lives on and answers nothing",
  async inject(world, victim) {
    const { name } = await firstOn(world, victim, "hang");
    // Its spare was started later, and waits for its turn.
    const startedAt = (pid: number) => startTicksOf(pid) ?? Number.POSITIVE_INFINITY;
    const [pid] = fileServers(world, victim, name).sort((x, y) => startedAt(x) - startedAt(y));
    if (pid === undefined)
      throw new BenchError("worldBroken", "hang", `no file server of ${name} runs on ${victim}`);
    signal(pid, "SIGSTOP");
  },
  repair: byItself,
};

/** Where the firmware holds the networks of its virtual servers, as it sees the file system. */
const networkOf = (world: World, victim: ControllerId, name: string) =>
  join(world.machines[victim].paths.runDir, "networks", name);

export const address: Fault = {
  name: "address",
  description:
    "somebody takes the address of the first virtual server there from its interface (ip address del)",
  async inject(world, victim) {
    const { name, address: taken } = await firstOn(world, victim, "address");
    const words = [
      ...world.machines[victim].enterWords(),
      ...["nsenter", `--net=${networkOf(world, victim, name)}`],
      ...["ip", "address", "del", `${taken}/24`, "dev", placeNic],
    ];
    await run(words[0] ?? "", words.slice(1));
  },
  repair: byItself,
};

export const readonly: Fault = {
  name: "readonly",
  description:
    "ext4 finds an error in the volume of the first virtual server there, and stops writing to it",
  async inject(world, victim) {
    const { name, disk } = await firstOn(world, victim, "readonly");
    const daemon = world.daemon(victim);
    const table = parseMountTable(readFileSync(`/proc/${daemon?.pid}/mountinfo`, "utf8"));
    const mounted = table.find(({ path }) => path.endsWith(`/${name}/${disk}`));
    if (!mounted)
      throw new BenchError("worldBroken", "readonly", `${disk} is not mounted on ${victim}`);
    // Documentation/ABI/testing/sysfs-fs-ext4: as an error in what was read from the disk.
    const trigger = `/sys/fs/ext4/${basename(mounted.source)}/trigger_fs_error`;
    writeFileSync(trigger, "injected by the bench");
  },
  repair: byItself,
};
