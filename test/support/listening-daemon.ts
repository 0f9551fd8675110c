/** Daemons that only remember, with their API on real sockets in a folder that goes with the file of tests. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect } from "vitest";
import { fakeDaemon } from "./fake-daemon.ts";

/** `listen` makes one more, on a socket of its own; whoever asked for it closes its API. To be called outside of tests. */
export function listeningDaemons(name: string) {
  const directory = mkdtempSync(join(tmpdir(), `dyad-${name}-`));
  afterAll(() => rmSync(directory, { recursive: true }));
  let count = 0;
  async function listen() {
    // The developer's own daemon.
    delete process.env.DYAD_SOCKET;
    const fake = fakeDaemon();
    count += 1;
    const socket = join(directory, `${count}.sock`);
    expect(await fake.api.listen(socket)).toEqual({ ok: true, value: socket });
    return { fake, socket };
  }
  return { directory, listen };
}
