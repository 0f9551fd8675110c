/** A disk behind the block path that can be frozen: a file as the NBD export `disk`. Arguments: file, socket. Says `ready`. */
import { FileDevice } from "../../hal/block/file-device.ts";
import { NbdServer } from "../../hal/block/nbd-server.ts";

const [file = "", path = ""] = process.argv.slice(2);
const device = await FileDevice.open(file, { blockSizeBytes: 512 });
if (!device.ok) throw new Error(JSON.stringify(device.fault));
const server = new NbdServer();
const added = server.add({ name: "disk", device: device.value });
if (!added.ok) throw new Error(JSON.stringify(added.fault));
const listening = await server.listen({ path });
if (!listening.ok) throw new Error(JSON.stringify(listening.fault));
console.log("ready");
