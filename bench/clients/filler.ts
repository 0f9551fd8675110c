/**
 * Process entry: fills a volume through NFS until there is no space left, and goes on trying to write, as a client does whose disk is full. Run it inside
 * a client's network namespace.
 *
 *     node bench/clients/filler.ts --server 10.0.0.100 --export /vol1
 *
 * On standard output, JSON lines: `{"t":"full","bytes":…}` once, when the server has first refused a write for want of space, then `{"t":"refused","count":…}`
 * with all refusals so far. At the end of standard input it removes its file and ends.
 */
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { noCounts } from "./engine.ts";
import { Nfs3Engine } from "./nfs3-engine.ts";

const fileName = "filler";
/** The last blocks are found by ever smaller writes; a block of the bench's volumes has 1 KiB. */
const writesBytes = [256 * 1024, 4096, 1024] as const;
const noSpace = "NFS3ERR_NOSPC";
/** Afterwards: as one of the bench's clients writes. */
const paceMs = 20;
const tellEvery = 5;

const { values } = parseArgs({
  options: { server: { type: "string" }, export: { type: "string" } },
});
const { server, export: exportPath } = values;
if (server === undefined || exportPath === undefined)
  throw new Error("expected --server and --export");
const target = { server, exportPath, nfsPort: 2049, mountPort: 20048 };
const open = () => new Nfs3Engine(target, noCounts());
const say = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);

let ending = false;

async function fill(): Promise<void> {
  const engine = open();
  const file = await engine.create(fileName);
  let offset = 0;
  for (const bytes of writesBytes) {
    const data = Buffer.alloc(bytes, 0xdd);
    while (!ending) {
      const said = await engine.tryWrite(file, offset, data);
      if (said === noSpace) break;
      if (said === "NFS3_OK") offset += bytes;
    }
  }
  say({ t: "full", bytes: offset });
  const data = Buffer.alloc(writesBytes[2], 0xdd);
  for (let refused = 0; !ending; await delay(paceMs)) {
    if ((await engine.tryWrite(file, offset, data)) === noSpace) refused += 1;
    else offset += data.length;
    if (refused % tellEvery === 0) say({ t: "refused", count: refused });
  }
}

async function end(): Promise<void> {
  ending = true;
  await filling;
  await open().remove(fileName);
  process.exit(0);
}

process.stdin.on("end", () => void end());
process.stdin.resume();
const filling = fill();
await filling;
