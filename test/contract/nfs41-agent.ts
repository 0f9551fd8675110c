/**
 * One NFSv4.1 client for the tests: commands as JSON lines on standard input, answers on standard output. It ends with its input, without a
 * word to the server.
 *
 *     node nfs41-agent.ts ADDRESS EXPORT OWNER
 */
import { createInterface } from "node:readline";
import { noCounts } from "../../bench/clients/engine.ts";
import * as nfs from "../../bench/clients/nfs41-codec.ts";
import { Nfs41Engine } from "../../bench/clients/nfs41-engine.ts";
import { Nfs41Session } from "../../bench/clients/nfs41-session.ts";

export type AgentCommand =
  /** Opens and locks the file for itself. */
  | { op: "hold"; path: string }
  /** Writes to a file that it holds. */
  | { op: "write"; path: string }
  /** Asks once, as another client, for a lock of a file; value: the server's word. */
  | { op: "attempt"; path: string }
  /** What it counted so far. */
  | { op: "counts" }
  /** Gives everything back and takes its leave. */
  | { op: "leave" };

const [server, exportPath, owner] = process.argv.slice(2);
if (server === undefined || exportPath === undefined || owner === undefined)
  throw new Error("usage: ADDRESS EXPORT OWNER");
const target = { server, exportPath, nfsPort: 2049, mountPort: 20048 };
const counters = noCounts();
const engine = new Nfs41Engine(target, owner, counters);
// It holds nothing that it would want back.
const rival = new Nfs41Session(target, `${owner}-rival`, noCounts(), async () => {});
/** The stateid of the OPEN before it in the same COMPOUND (RFC 8881 8.2.3). */
const current = Buffer.from("000000010000000000000000".padEnd(32, "0"), "hex");
const reading = { access: nfs.share.read, deny: nfs.share.none };
const range = { type: nfs.lockType.read, offset: 0n, length: nfs.toTheEnd };

async function attempt(path: string): Promise<string> {
  const names = exportPath?.split("/").filter((name) => name !== "") ?? [];
  const asked = await rival.call(
    (clientId) => {
      const mine = { clientId, name: "rival" };
      return [
        nfs.putRootHandle(),
        ...names.map(nfs.lookup),
        nfs.open(path, mine, reading, false),
        nfs.lock(current, mine, range, false),
      ];
    },
    { isCached: true },
  );
  return asked.ok ? "NFS4_OK" : asked.status;
}

async function perform(command: AgentCommand): Promise<unknown> {
  switch (command.op) {
    case "hold":
      await engine.create(command.path);
      return true;
    case "write":
      await engine.write(await engine.create(command.path), 0, Buffer.alloc(512, 7), "file-sync");
      return true;
    case "attempt":
      return await attempt(command.path);
    case "counts":
      return counters;
    case "leave":
      await engine.close();
      return true;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const value = await perform(JSON.parse(line) as AgentCommand);
  process.stdout.write(`${JSON.stringify({ value })}\n`);
}
process.exit();
