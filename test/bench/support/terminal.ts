/** What tests of virtual servers that come and go do with a world: commands at either controller, clients, and what both controllers know. */
import { expect } from "vitest";
import { allLively, Client, type ClientReport } from "../../../bench/campaign/clients.ts";
import { controllerIds, type PlannedServer } from "../../../bench/world/layout.ts";
import type { World } from "../../../bench/world/world.ts";
import type { ControllerId } from "../../../firmware-ts/schema/ids.ts";
import { runDyad } from "../../support/cli-run.ts";
import { limitsMs } from "../../support/limits.ts";

/** A command at a controller, which is waited for as long as a test waits for anything. */
export const wait = "--wait 60";

/** Of a world that is made later than the test's functions. */
export function terminalOf(world: () => World) {
  const dyad = (id: ControllerId, command: string) =>
    runDyad(world().machines[id].paths.socket, command);

  /** A command that must do what it says. */
  async function must(id: ControllerId, command: string): Promise<string> {
    const ran = await dyad(id, command);
    expect([ran.code, ran.err], `${command}\n${ran.out}${ran.err}`).toEqual([0, ""]);
    return ran.out;
  }

  /** What both controllers say of its definition; undefined where there is none. */
  async function definitions(name: string) {
    const shown = await Promise.all(
      controllerIds.map((id) => dyad(id, `-o json vserver show ${name}`)),
    );
    return shown.map(({ code, out }) => (code === 0 ? JSON.parse(out).definition : undefined));
  }

  function connect(index: number, server: Pick<PlannedServer, "name" | "address" | "export">) {
    const client = new Client(world(), index, server, { engines: "nfs3", paceMs: 4 });
    client.mark("begin");
    return client;
  }

  return { dyad, must, definitions, connect };
}

export const lively = (...clients: Client[]) => allLively(clients, limitsMs.condition);

export const gapOf = ({ engines }: ClientReport) =>
  Math.max(...engines.map(({ read }) => read.longestGapMs));

export async function mustVerify(client: Client): Promise<ClientReport> {
  const report = await client.report(limitsMs.condition);
  expect(report).toMatchObject({
    verified: true,
    lostAckedWrites: 0,
    staleReads: 0,
    rolledBackReads: 0,
    phantomReads: 0,
    corruptReads: 0,
  });
  return report;
}
