/** A folder for image files, mounts and loop devices of one test run; what a killed run left is removed by the next. */
import { mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseMountTable } from "../../../hal/linux/mount-table.ts";
import { isAlive, run } from "./namespaces.ts";

const prefix = "dyadtest-loop";

function unmountBelow(folder: string): void {
  const entries = parseMountTable(readFileSync("/proc/self/mountinfo", "utf8"));
  for (const { path } of entries.toReversed()) {
    if (path.startsWith(`${folder}/`)) run("umount", "-l", path);
  }
}

function detachBelow(folder: string): void {
  for (const line of run("losetup", "-n", "-O", "NAME,BACK-FILE").split("\n")) {
    const [name, file] = line.trim().split(/\s+/);
    if (name && file?.startsWith(`${folder}/`)) run("losetup", "-d", name);
  }
}

/** Removes the folder with everything that was mounted below it or attached from it. */
export function removeLoopFolder(folder: string): void {
  unmountBelow(folder);
  detachBelow(folder);
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
