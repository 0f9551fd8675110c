/**
 * A partner that can be killed: a file as the replica `home` in generation `g1`. Arguments: file, port of 127.0.0.1 or path of a socket.
 * Says `ready`.
 */
import { AccessProgram } from "../../hal/block/access/access-program.ts";
import { FileDevice } from "../../hal/block/file-device.ts";
import { NbdServer } from "../../hal/block/nbd-server.ts";
import { servingTls } from "../support/pair-tls.ts";

const [file = "", where = ""] = process.argv.slice(2);
const opened = await FileDevice.open(file, { blockSizeBytes: 512 });
if (!opened.ok) throw new Error(JSON.stringify(opened.fault));
const server = new NbdServer({ tls: servingTls });
const device = opened.value;
const offered = AccessProgram.offer({ server, device, volume: "home", generation: "g1" });
if (!offered.ok) throw new Error(JSON.stringify(offered.fault));
offered.value.admit();
const port = Number(where);
const address = port > 0 ? { host: "127.0.0.1", port } : { path: where };
const listening = await server.listen(address);
if (!listening.ok) throw new Error(JSON.stringify(listening.fault));
console.log("ready");
