/**
 * The block service as a process: one for each controller, child of the daemon. A process of its own, so that neither data
 * nor a slow disk ever holds up a decision, nor a decision the data. It ends with the channel to its parent.
 */
import { readdirSync } from "node:fs";
import { setPriority } from "node:os";
import { giveBackRegularly } from "../memory.ts";
import { requestSchema, type ServiceMessage } from "./protocol.ts";
import { BlockServiceCore } from "./service.ts";

function say(message: ServiceMessage): void {
  // A parent that is gone cannot be told; "disconnect" ends us in this same turn.
  if (process.connected) process.send?.(message);
}

/** Every block of a volume passes through this process: as far above batch work as the file service is. */
const niceness = -10;

/** All threads, since the main one waits for the garbage collector's helpers. Without the right to, it is only slower. */
function raisePriority(): void {
  try {
    for (const thread of readdirSync("/proc/self/task")) setPriority(Number(thread), niceness);
  } catch (error) {
    console.error(`block service: priority not raised: ${String(error)}`);
  }
}

raisePriority();
giveBackRegularly({ collect: true });
const service = new BlockServiceCore(say);
let ending = false;

async function end(code: number): Promise<void> {
  if (ending) return;
  ending = true;
  await service.close();
  process.exit(code);
}

process.on("message", (message) => {
  const request = requestSchema.safeParse(message);
  if (request.success) void service.handle(request.data);
  else if (typeof message === "object" && message !== null && "id" in message) {
    const id = typeof message.id === "number" ? message.id : 0;
    const text = request.error.issues.map(({ path, message: why }) => `${path.join(".")}: ${why}`);
    const fault = { code: "badInput", operation: "block service", message: text.join("; ") };
    say({ kind: "fault", id, fault });
  }
});
process.on("disconnect", () => void end(0));
process.on("SIGTERM", () => void end(0));
// The terminal's interrupt goes to the whole group; the parent decides when we end.
process.on("SIGINT", () => {});

if (process.send === undefined) {
  console.error("block service: started without a channel to a parent");
  process.exit(2);
}
say({ kind: "ready" });
