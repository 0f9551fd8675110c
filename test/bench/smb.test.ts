/** Volumes by NFS and SMB at once: what SMB clients have when a virtual server fails over, moves, or loses one of its two file servers. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openStage } from "../../bench/campaign/failover.ts";
import type { Stage } from "../../bench/campaign/one-run.ts";
import { smbActs, smbMoves } from "../../bench/campaign/smb.ts";
import { SmbClient } from "../../bench/campaign/smb-clients.ts";
import { controllerIds } from "../../bench/world/layout.ts";
import { signal } from "../../bench/world/processes.ts";
import { cleanPrefix } from "../../bench/world/world.ts";
import { run as ranTo } from "../contract/block-lab.ts";
import { until } from "../support/until.ts";
import { leftovers } from "./support/leftovers.ts";
import { terminalOf, wait } from "./support/terminal.ts";

const prefix = "bsmb";
/** Nothing here is about how much can be done at once. */
const paceMs = 50;
let stage: Stage;

/** How fast is the campaign's question, on a machine that does nothing else. */
const slow = /^(run \d+: )?(median outage|silent for|settled after) /;

/** Processes of a controller whose command line has that in it. */
const processes = (id: "a" | "b", words: RegExp) =>
  stage.world.machines[id].cgroup.processes().filter((pid) => {
    try {
      return words.test(readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " "));
    } catch {
      return false; // It ended meanwhile.
    }
  });

beforeAll(async () => {
  await cleanPrefix(prefix);
  stage = await openStage({ prefix, engines: "nfs3", paceMs, clientCount: 2, shares: true });
});
afterAll(async () => {
  await stage?.world.stop();
  expect(await leftovers(prefix)).toEqual([]);
});

describe("a virtual server with exports and shares", () => {
  it("says so, and its NFS server asks the kernel what the SMB server has written", async () => {
    const { virtualServers } = await stage.world.apis.a.status();
    expect(virtualServers.map(({ exports, shares }) => [exports, shares])).toEqual([
      [["/vol1"], ["vol1"]],
      [["/vol2"], ["vol2"]],
    ]);
    const [ganesha = 0] = processes("a", /ganesha\.nfsd .*ganesha-vs1\./);
    expect(readFileSync(`/proc/${ganesha}/maps`, "utf8")).toContain("dyad-durable-reads.so");
  });

  it.each(smbActs)("loses no file that was put when there is a %s", async (act) => {
    const result = await smbMoves(stage, act, { runs: 1, paceMs }, () => undefined);
    expect(result.problems.filter((problem) => !slow.test(problem))).toEqual([]);
    expect(result).toMatchObject({ runs: 1, smbLostFiles: 0, lostAckedWrites: 0, staleReads: 0 });
    expect(result.smbPuts).toBeGreaterThan(0);
    expect(result.smbGapMs?.max).toBeGreaterThan(0);
    console.log(JSON.stringify({ act, gap: result.smbGapMs, address: result.addressOutageMs }));
  });

  it("is restarted in place as a whole when its SMB server dies", async () => {
    const { world } = stage;
    const client = new SmbClient(world, 0, paceMs);
    try {
      await until("it puts", () => client.puts > 0);
      const first = processes("a", /ganesha\.nfsd .*ganesha-vs1\./);
      const events = await world.apis.a.events(0);
      const since = events.at(-1)?.sequence ?? 0;
      // By its name, as an administrator would: the spare, which is the next to start, with it.
      for (const smbd of processes("a", /^smbd .*samba-vs1\./)) signal(smbd, "SIGKILL");
      const said = async () => (await world.apis.a.events(since)).map(({ code }) => code);
      await until("it serves again", async () => {
        const codes = await said();
        return codes.lastIndexOf("vserver.serving") > codes.indexOf("vserver.serviceDied");
      });
      expect(await said()).toContain("vserver.serviceDied");
      const { puts } = client;
      await until("the client goes on", () => client.puts > puts);
      expect(await client.lost()).toEqual([]);
      expect(processes("a", /ganesha\.nfsd .*ganesha-vs1\./)).not.toEqual(first);
    } finally {
      await client.stop();
    }
  });

  it("loses a share, and gets it back by another name, while the firmware runs; what was put is there", async () => {
    const { world } = stage;
    const [server] = world.layout.servers;
    const [client] = world.layout.namespaces.clients;
    if (!server) throw new Error("a virtual server expected");
    const { must: dyad } = terminalOf(() => world);
    const smb = (share: string, commands: string) =>
      ranTo(
        "nsenter",
        `--net=/run/netns/${client}`,
        "smbclient",
        "-N",
        `//${server.address}/${share}`,
        "-c",
        commands,
      );
    expect(await smb("vol1", "put /etc/os-release kept")).toMatchObject({ code: 0 });
    await dyad("a", `vserver share remove vs1 vol1 ${wait}`);
    expect((await smb("vol1", "ls")).code).not.toBe(0);
    // Neither one that serves nor a spare, on either controller.
    for (const id of controllerIds)
      await until("no smbd is there", () => processes(id, /^smbd .*samba-vs1\./).length === 0);
    await dyad("a", `vserver share add vs1 D1 Other --guest ${wait}`);
    expect(await dyad("b", "vserver show vs1")).toContain("shares: Other");
    expect((await smb("Other", "get kept /dev/null")).code).toBe(0);
    expect((await smb("vol1", "ls")).code).not.toBe(0);
    await dyad("a", `vserver transfer vs1 ${wait}`);
    expect((await smb("Other", "get kept /dev/null")).code).toBe(0);
    await dyad("b", `giveback ${wait}`);
  });
});
