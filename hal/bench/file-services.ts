/** The file services of a controller: one nfs-ganesha for each virtual server, with a spare waiting for the next start. */
import type { Config, VirtualServerConfig } from "../../firmware-ts/schema/config.ts";
import { done, explain, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { createPortMapper } from "../linux/ganesha/rpcbind.ts";
import { createGanesha, type Ganesha } from "../linux/ganesha.ts";
import type { FileServices, MachineHandlers } from "../port/machine.ts";

/** Where ganesha keeps the records of NFSv4 clients, on the first volume of the virtual server. */
const recoveryDir = ".dyad/nfs4";

/** Time for what an earlier life left to die. */
const leftoversMs = 2000;

/** Kills what an earlier life left behind, starts the spares, and returns the services. */
export async function openFileServices(
  config: Config,
  handlers: MachineHandlers,
): Promise<FileServices> {
  const portMapper = createPortMapper();
  const servers = new Map<string, Ganesha>();
  /** Numbers of exports are part of every file handle: from the configuration's order, which both controllers share. */
  const exportIds = new Map<string, number>();
  let nextId = 1;
  for (const server of config.virtualServers) {
    for (const volume of server.volumes) {
      exportIds.set(volume.export, nextId);
      nextId += 1;
    }
    const { name } = server;
    const ganesha = createGanesha({
      name,
      runDir: `${config.controller.runDir}/services`,
      portMapper,
      log: (message) => handlers.log(`${name}: ${message}`),
      onEnd: (end) => {
        if (!end.expected) handlers.serviceExited(name, JSON.stringify(end));
        void ganesha.prepare();
      },
    });
    servers.set(name, ganesha);
    const cleaned = await ganesha.killLeftovers(leftoversMs);
    if (!cleaned.ok) handlers.log(explain(cleaned.fault));
  }
  const mapper = await portMapper.ensure();
  if (!mapper.ok) handlers.log(explain(mapper.fault));

  const find = (name: string): Ganesha => {
    const ganesha = servers.get(name);
    if (!ganesha) throw new Error(`file service ${name} is not in the configuration`);
    return ganesha;
  };

  async function start(
    server: VirtualServerConfig,
    mountPaths: readonly string[],
    limitMs: number,
  ): Promise<Outcome> {
    const ganesha = find(server.name);
    const [address] = server.addresses.map((text) => text.split("/")[0] ?? text);
    const [first] = mountPaths;
    if (address === undefined || first === undefined)
      return failed("badInput", `start ${server.name}`, "no address or no volume");
    const started = await ganesha.start({
      address,
      exports: server.volumes.map((volume, i) => ({
        id: exportIds.get(volume.export) ?? i + 1,
        path: mountPaths[i] ?? first,
        pseudo: volume.export,
      })),
      recoveryDir: `${first}/${recoveryDir}`,
    });
    if (!started.ok) return started;
    const answered = await ganesha.probe(limitMs);
    return answered.ok ? done : answered;
  }

  return {
    start,
    stop(name, limitMs) {
      const ganesha = find(name);
      // At once, also when a start is under way; then wait until the kernel has let go of everything.
      ganesha.kill();
      return ganesha.stop({ timeoutMs: limitMs });
    },
    prepare: (name) => find(name).prepare(),
    async close() {
      for (const ganesha of servers.values()) await ganesha.close({ timeoutMs: leftoversMs });
      await portMapper.stop();
    },
  };
}
