/**
 * Service state on the volume: what the last owner of a virtual server leaves there for the next one (US 7,200,622: a copy of the
 * service state is kept on the disk). Now: the clients' connections, so that the next owner can tickle them. It is a hint, never
 * a proof: a damaged or missing record costs clients some of their own timeouts and nothing else.
 */
import { type FileHandle, open, readFile, rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { done, failed } from "../../firmware-ts/schema/outcome.ts";
import type { ServiceState, ServiceStates } from "../port/machine.ts";

/** In a directory of ours at the root of the volume; ganesha's client records are its neighbours. */
const stateFile = ".dyad/service-state.json";

const stateBytesMax = 1024 * 1024;
const port = z.number().int().min(1).max(65535);
const address = z.union([z.ipv4(), z.ipv6()]);
const stateSchema = z.strictObject({
  connections: z
    .array(
      z.strictObject({
        localAddress: address,
        localPort: port,
        remoteAddress: address,
        remotePort: port,
      }),
    )
    .max(4096),
});

const empty: ServiceState = { connections: [] };

/** Writes, if there is something to write, and closes when the disk has it. */
async function synced(file: FileHandle, write: () => Promise<void>): Promise<void> {
  try {
    await write();
    await file.sync();
  } finally {
    await file.close();
  }
}

/** The driver; stateless. */
export function createServiceStates(): ServiceStates {
  return {
    async load(mountPath) {
      try {
        const text = await readFile(join(mountPath, stateFile));
        if (text.length > stateBytesMax) return { state: empty, note: "too long, ignored" };
        const parsed = stateSchema.safeParse(JSON.parse(text.toString("utf8")));
        if (!parsed.success) return { state: empty, note: "malformed, ignored" };
        return { state: parsed.data };
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENOENT") return { state: empty };
        return { state: empty, note: `not readable: ${String(error)}` };
      }
    },
    async save(mountPath, state) {
      const path = join(mountPath, stateFile);
      try {
        const file = await open(`${path}.new`, "w", 0o600);
        // Without the sync the rename could reach the disk before the bytes, and the next owner would read a hole.
        await synced(file, () => file.writeFile(JSON.stringify(state)));
        await rename(`${path}.new`, path);
        // Until the directory is on the disk, too, the next owner reads the list before this one: for as long as the journal keeps it, 5 s.
        await synced(await open(dirname(path), "r"), () => Promise.resolve());
        return done;
      } catch (error) {
        return failed("ioError", `save ${path}`, "the service state was not saved", error);
      }
    },
  };
}
