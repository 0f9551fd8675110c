/** A process that starts a world and is killed by its test: `node start-world.ts PREFIX`. Says a line when the world serves. */
import { World } from "../../../bench/world/world.ts";

const [prefix] = process.argv.slice(2);
if (prefix === undefined) throw new Error("usage: start-world.ts PREFIX");
await World.start({ prefix });
process.stdout.write("serving\n");
setInterval(() => {}, 1000);
