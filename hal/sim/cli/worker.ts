/** A thread of the simulator: takes shares of seeds, gives back what they came to. */
import { parentPort } from "node:worker_threads";
import { runShare, type Share } from "../campaign.ts";

const port = parentPort;
if (!port) throw new Error("sim worker: not started as a thread");
port.on("message", (share: Share) => port.postMessage(runShare(share)));
