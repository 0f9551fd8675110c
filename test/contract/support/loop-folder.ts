/** A folder for image files, mounts and loop devices of one test run; what a killed run left is removed by the next. */
import { mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseMountTable } from "../../../hal/linux/mount-table.ts";
import { isAlive, run } from "./namespaces.ts";

const prefix = "dyadtest-loop";

function unmountBelow(folder: string, device: RegExp): void {
  const entries = parseMountTable(readFileSync("/proc/self/mountinfo", "utf8"));
  for (const { path, source } of entries.toReversed()) {
    if (path.startsWith(`${folder}/`) && device.test(source)) run("umount", "-l", path);
  }
}

/** From sysfs: losetup looks at the backing files themselves and hangs with a server that was left stopped. */
function detachBelow(folder: string): void {
  for (const name of readdirSync("/sys/block")) {
    let file: string;
    try {
      file = readFileSync(`/sys/block/${name}/loop/backing_file`, "utf8");
    } catch {
      continue; // No loop device, or one without a file.
    }
    if (file.startsWith(`${folder}/`)) run("losetup", "-d", `/dev/${name}`);
  }
}

/** Removes the folder with everything that was mounted below it or attached from it. */
export function removeLoopFolder(folder: string): void {
  // From the top down: a loop device whose file is no longer in the tree has lost its name too.
  unmountBelow(folder, /^\/dev\/loop/);
  detachBelow(folder);
  unmountBelow(folder, /./);
  rmSync(folder, { recursive: true, force: true });
}

export function makeLoopFolder(): string {
  const root = realpathSync(tmpdir());
  for (const name of readdirSync(root)) {
    const owner = new RegExp(`^${prefix}-(\\d+)-`).exec(name)?.[1];
    if (owner !== undefined && !isAlive(Number(owner))) removeLoopFolder(join(root, name));
  }
  return mkdtempSync(join(root, `${prefix}-${process.pid}-`));
}
