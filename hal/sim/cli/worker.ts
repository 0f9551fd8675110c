/** A thread of the simulator: takes shares of seeds, or of the steps of a story, and gives back what they came to. */
import { parentPort } from "node:worker_threads";
import { runShare, type Share } from "../campaign.ts";
import { StepRunner, type StepShare } from "../step-campaign.ts";

const port = parentPort;
if (!port) throw new Error("sim worker: not started as a thread");
const steps = new StepRunner();
port.on("message", (share: Share | StepShare) =>
  port.postMessage(share.kind === "seeds" ? runShare(share) : steps.run(share)),
);
