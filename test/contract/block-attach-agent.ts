/**
 * A controller's block path as a process that can be killed: opens and owns the disk, attaches it, says the device, and waits.
 * Arguments: folder, name of the attachment, disk specification as JSON, key; and `mount` to mount it at folder/mnt.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Attachment } from "../../hal/block/attach.ts";
import { BlockServiceClient } from "../../hal/block/service/client.ts";
import { diskSpecSchema } from "../../hal/block/service/protocol.ts";
import { limitsMs } from "../support/limits.ts";

const [folder = "", name = "", disk = "", key = "", mount] = process.argv.slice(2);
const spec = diskSpecSchema.parse(JSON.parse(disk));
const type = "exclusiveAccessRegistrantsOnly";
const nbdSocketPath = join(folder, `${name}.nbd`);

function check<T extends { readonly ok: boolean }>(outcome: T): T & { ok: true } {
  if (!outcome.ok) throw new Error(JSON.stringify(outcome));
  return outcome as T & { ok: true };
}

const service = check(await BlockServiceClient.start(nbdSocketPath)).value;
const opened = check(await service.open(spec, limitsMs.condition)).value;
await service.reserve(spec.serial, { op: "register", key }, limitsMs.condition);
await service.reserve(spec.serial, { op: "reserve", key, type }, limitsMs.condition);
check(await service.allow(spec.serial, { key, type }, limitsMs.condition));
const { sizeBytes, blockSizeBytes } = opened;
const attachment = new Attachment({
  ...{ name, nbdSocketPath, exportName: spec.serial, folder, sizeBytes, blockSizeBytes },
});
const device = check(await attachment.attach()).value;
if (mount === "mount") {
  mkdirSync(join(folder, "mnt"), { recursive: true });
  execFileSync("mkfs.ext4", ["-q", "-F", device]);
  execFileSync("mount", [device, join(folder, "mnt")]);
}
process.on("SIGTERM", async () => {
  if (mount === "mount") execFileSync("umount", [join(folder, "mnt")]);
  check(await attachment.close());
  await service.close();
});
// Last: whoever reads this may send the signal at once.
console.log(JSON.stringify({ device, pid: process.pid, service: service.pid }));
