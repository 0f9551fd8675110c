/** The network of a virtual server, as the kernel makes it. */
import { existsSync, mkdtempSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { explain } from "../../firmware-ts/schema/outcome.ts";
import { NetworkNamespace } from "../../hal/linux/network-namespace.ts";
import { rootMissing } from "./support/namespaces.ts";

const setting = "/proc/sys/net/ipv4/tcp_child_ehash_entries";
const read = (path: string) => readFileSync(path, "utf8").trim();

let folder: string;
let made: NetworkNamespace | undefined;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "dyad-net-"));
});
afterEach(() => {
  made?.remove();
  made = undefined;
  rmSync(folder, { recursive: true });
});

function make(): NetworkNamespace {
  const outcome = NetworkNamespace.make(join(folder, "net"));
  if (!outcome.ok) throw new Error(explain(outcome.fault));
  made = outcome.value;
  return made;
}

test.skipIf(rootMissing || !existsSync(setting))(
  "it has a table of TCP connections of its own, and the setting outside is as it was",
  () => {
    const before = read(setting);
    const rows = make().inside(() => read("/proc/sys/net/ipv4/tcp_ehash_entries"));
    expect(Number(rows)).toBe(16384);
    expect(read(setting)).toBe(before);
  },
);

test.skipIf(rootMissing)(
  "made a second time it is the same, and this thread is where it was",
  () => {
    const here = () => readlinkSync("/proc/thread-self/ns/net");
    const outside = here();
    const first = make().inside(here);
    const again = NetworkNamespace.make(join(folder, "net"));
    if (!again.ok) throw new Error(explain(again.fault));
    expect(again.value.inside(here)).toBe(first);
    again.value.close();
    expect(first).not.toBe(outside);
    expect(here()).toBe(outside);
  },
);
