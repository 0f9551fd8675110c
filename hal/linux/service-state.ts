/**
 * Service state on the volume: what the last owner of a virtual server leaves there for the next one (US 7,200,622: a copy of the
 * service state is kept on the disk). Now: the clients' connections, so that the next owner can tickle them. It is a hint, never
 * a proof: a damaged or missing record costs clients some of their own timeouts and nothing else.
 */
import { open, readFile, rename } from "node:fs/promises";
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

/** Without its own sync the rename could reach the disk before the bytes, and the next owner would read a hole. */
async function replace(path: string, text: string): Promise<void> {
  const file = await open(`${path}.new`, "w", 0o600);
  try {
    await file.writeFile(text);
    await file.datasync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
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
        // Opened first: it is that of the volume, whatever becomes of the mount meanwhile.
        const directory = await open(dirname(path), "r");
        try {
          await replace(path, JSON.stringify(state));
          // Until then the next owner reads the list before this one: for as long as the journal keeps it, 5 s.
          await directory.sync();
        } finally {
          await directory.close();
        }
        return done;
      } catch (error) {
        return failed("ioError", `save ${path}`, "the service state was not saved", error);
      }
    },
  };
}
