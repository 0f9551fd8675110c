/**
 * One process of a mirror to be measured: `perf-mirror-serve.ts replica LISTEN FILE`, `remote LISTEN SERVER` (the remote device alone) or
 * `mirror LISTEN FILE SERVER`. LISTEN and SERVER are a port of 127.0.0.1 or the path of a socket; the export is `disk`.
 */

import type { Outcome } from "../firmware-ts/schema/outcome.ts";
import { FileDevice } from "../hal/block/file-device.ts";
import { MirrorDevice } from "../hal/block/mirror/mirror-device.ts";
import { type NbdAddress, NbdServer } from "../hal/block/nbd-server.ts";
import { RemoteDevice } from "../hal/block/remote/remote-device.ts";

const readyMs = 10_000;

function addressOf(text: string): NbdAddress {
  return Number(text) > 0 ? { host: "127.0.0.1", port: Number(text) } : { path: text };
}

function must<T>(outcome: Outcome<T>): T {
  if (!outcome.ok) throw new Error(outcome.fault.message);
  return outcome.value;
}

const fileOf = async (path: string) =>
  must(await FileDevice.open(path, { io: "inline", blockSizeBytes: 512 }));

async function remoteOf(server: string): Promise<RemoteDevice> {
  const address = addressOf(server);
  return must(await RemoteDevice.open({ address, exportName: () => "disk" }, readyMs));
}

/** Nothing is lost in a measurement, and every extent is active, as those are that a client writes to all the time. */
async function mirrorOf(path: string, server: string): Promise<MirrorDevice> {
  const [local, remote] = await Promise.all([fileOf(path), remoteOf(server)]);
  const { sizeBytes, blockSizeBytes } = local;
  return must(
    MirrorDevice.create({
      ...{ local, remote, sizeBytes, blockSizeBytes },
      dirty: {
        ...{ grainBytes: 64 * 1024, dirtyBytes: 0 },
        ...{ mark: () => undefined, clean: async () => ({ ok: true, value: undefined }) },
        next: () => undefined,
      },
      activity: { extentBytes: 4 * 1024 * 1024, activate: () => undefined, mayRest: () => {} },
      handlers: {
        legLost: (leg, reason) => {
          throw new Error(`the ${leg} leg was lost: ${reason}`);
        },
      },
    }),
  );
}

const [kind = "", listen = "", first = "", second = ""] = process.argv.slice(2);
const device =
  kind === "replica"
    ? await fileOf(first)
    : kind === "remote"
      ? await remoteOf(first)
      : await mirrorOf(first, second);
const server = new NbdServer();
must(server.add({ name: "disk", device }));
must(await server.listen(addressOf(listen)));
console.log("ready");
