/**
 * A controller with an SMB service that serves and a spare, to be killed by its test: `node samba-agent.ts FOLDER RUN_DIR`, in the network of a
 * controller. Says the process numbers of both, once they are there.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { good } from "../../firmware-ts/schema/outcome.ts";
import { PlacesFolder } from "../../hal/linux/place/folder.ts";
import { Place } from "../../hal/linux/place/place.ts";
import { programsOf } from "../../hal/linux/place/programs.ts";
import { createSamba, parseSmbService } from "../../hal/linux/samba.ts";
import { interfaceIndex } from "../../hal/linux/syscalls.ts";
import { must } from "./block-lab.ts";
import { value } from "./samba-lab.ts";

const [, , folder = "", runDir = ""] = process.argv;
// Its children must not have it.
await must("chrt", "-f", "-p", "5", String(process.pid));
const places = new PlacesFolder(join(folder, "places"));
value(places.make("left"));
const mac = Uint8Array.of(2, 0xdd, 0, 0, 0, 9);
const carrier = good({ name: "wire0", index: interfaceIndex("wire0") });
const holdPath = join(folder, "networks", "left");
const place = value(Place.open({ name: "left", carrier, mac, holdPath }));
mkdirSync(join(places.path, "left", "d1"));
const samba = createSamba({
  name: "left",
  runDir,
  place: programsOf(place, places, "left"),
  log: () => undefined,
  onEnd: () => undefined,
  onHung: () => undefined,
});
const service = value(
  parseSmbService({
    name: "left",
    workgroup: "WORKGROUP",
    addresses: ["127.0.0.1"],
    guest: true,
    users: [],
    writeThrough: true,
    shares: [{ name: "data", path: "/srv/d1", shared: false }],
    passwordFile: "/srv/d1/.dyad/smb/smbpasswd",
  }),
);
value(await samba.start(service));
value(await samba.probe(60_000));
value(await samba.prepare(service));
await samba.spareHeld();
process.stdout.write(`${JSON.stringify(samba.state())}\n`);
setInterval(() => {}, 1000);
