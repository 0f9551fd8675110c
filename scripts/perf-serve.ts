/** A file on offer by our NBD server, as a process to be measured: `perf-serve.ts FILE SOCKET threads|inline`. */
import { FileDevice } from "../hal/block/file-device.ts";
import { NbdServer } from "../hal/block/nbd-server.ts";

const [file = "", path = "", io = "threads"] = process.argv.slice(2);
const opened = await FileDevice.open(file, { io: io === "inline" ? "inline" : "threads" });
if (!opened.ok) throw new Error(opened.fault.message);
const server = new NbdServer();
server.add({ name: "disk", device: opened.value });
const listening = await server.listen({ path });
if (!listening.ok) throw new Error(listening.fault.message);
