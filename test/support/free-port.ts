/** A TCP port of 127.0.0.1 for a server that a test starts, ends and starts again at the same place. */
import { createServer } from "node:net";

/**
 * Below the ports that the kernel gives to clients (ip_local_port_range, ip-sysctl): while the server is down, no connection of somebody
 * else's may take its place.
 */
const [first, count] = [20_000, 10_000];

export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 100; tries += 1) {
    const port = first + Math.floor(Math.random() * count);
    const server = createServer();
    const taken = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(true));
      server.listen(port, "127.0.0.1", () => resolve(false));
    });
    if (taken) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
  throw new Error(`no free port from ${first} on`);
}
