/**
 * Virtual servers come, change and go on one controller while a client of another one reads and writes: real kernel, shelf, file service; the
 * decisions are the test's.
 */
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { placeNic } from "../../hal/linux/place/place.ts";
import { until } from "../support/until.ts";
import { definition, type LabClient, MachineLab } from "./support/machine-lab.ts";
import { rootMissing } from "./support/namespaces.ts";

const alpha = definition(0, "alpha", ["D1"]);
const beta = definition(1, "beta", ["D2"]);
const gamma = definition(7, "gamma", ["D3"]);

const faultOf = (outcome: { ok: boolean; fault?: { code: string } }) => outcome.fault?.code;

describe.skipIf(rootMissing)("virtual servers that come, change and go", () => {
  let lab: MachineLab;
  let client: LabClient;

  /** Runs a program in the network of a virtual server. */
  const inPlace = (name: string, ...words: string[]) =>
    lab.run("nsenter", `--net=${join(lab.runDir, "networks", name)}`, "--", ...words);
  const linkOf = (name: string) => inPlace(name, "ip", "-o", "link", "show", placeNic);
  const addressesOf = (name: string) =>
    [...inPlace(name, "ip", "-o", "-4", "address", "show", placeNic).matchAll(/inet (\S+)/g)].map(
      ([, address]) => address,
    );
  const mounted = (name: string) =>
    lab.run("cat", "/proc/self/mountinfo").includes(join(lab.runDir, "places", name, "D"));
  const spareOf = async (name: string) => {
    await until(`${name} has a spare`, () =>
      lab.traces(`services/ganesha-${name}.`).some((line) => line.includes("ganesha.nfsd")),
    );
  };

  beforeAll(async () => {
    lab = await MachineLab.open(["D1", "D2", "D3", "D4", "C1"]);
    await lab.start([alpha, beta]);
    await lab.serve(alpha);
    await lab.serve(beta);
    client = lab.connect(alpha);
    await client.reads();
  });

  afterAll(async () => {
    await client?.end();
    await lab?.close();
  });

  test("one that comes is served beside those that are there", async () => {
    client.mark();
    expect(await lab.define(gamma)).toEqual({ ok: true });
    // Everything by its number: the hardware address of this controller, and the identity towards the shelf.
    expect(linkOf("gamma")).toContain("link/ether 02:dd:00:01:01:08 ");
    expect(addressesOf("gamma")).toEqual([]);
    await spareOf("gamma");
    await lab.serve(gamma);
    const its = lab.connect(gamma);
    await its.reads();
    const report = await its.report();
    expect(report).toMatchObject({ verified: true, lostAckedWrites: 0 });
    await its.end();
    // Once more changes nothing of what runs.
    const before = lab.run("pgrep", "-f", "services/ganesha-gamma");
    expect(await lab.define(gamma)).toEqual({ ok: true });
    expect(lab.run("pgrep", "-f", "services/ganesha-gamma")).toContain(before.split("\n")[0]);
  });

  test("what contradicts what is here is refused, and changes nothing", async () => {
    const refusals = [
      definition(8, "gamma", ["D4"]),
      definition(7, "delta", ["D4"]),
      definition(1, "beta", ["D2", "D3"]),
    ];
    for (const each of refusals) expect(faultOf(await lab.define(each))).toBe("refused");
    expect(faultOf(await lab.forget(definition(0, "gamma", ["D4"])))).toBe("refused");
    expect(lab.traces("places/delta")).toEqual([]);
    expect(mounted("gamma")).toBe(true);
  });

  test("while it is served: addresses that it has no more go at once, new ones come with its next start; routes and rules are put right", async () => {
    const addresses = ["10.5.0.107/24", "10.5.1.7/24"];
    const routes = [{ to: "default", via: "10.5.0.250" }];
    const one = definition(7, "gamma", ["D3"], { addresses, routes });
    await lab.must("gamma", { op: "define", definition: one });
    expect(addressesOf("gamma")).toEqual(["10.5.0.107/24"]);
    expect(inPlace("gamma", "ip", "route", "show", "default")).toBe("");
    await lab.must("gamma", { op: "addAddresses" });
    expect(addressesOf("gamma")).toEqual(addresses);
    const way = () => inPlace("gamma", "ip", "route", "show", "default");
    expect(way()).toContain("via 10.5.0.250 ");

    const other = definition(7, "gamma", ["D3"], {
      addresses,
      routes: [
        { to: "default", via: "10.5.1.250" },
        { to: "192.0.2.0/24", via: "10.5.0.250", table: 9 },
      ],
      rules: [{ from: "10.5.1.0/24", table: 9 }],
    });
    await lab.must("gamma", { op: "define", definition: other });
    expect(way()).toContain("via 10.5.1.250 ");
    expect(way()).not.toContain("10.5.0.250");
    expect(inPlace("gamma", "ip", "rule")).toMatch(/from 10\.5\.1\.0\/24 lookup 9/);

    const fewer = definition(7, "gamma", ["D3"], { addresses: ["10.5.1.7/24"] });
    await lab.must("gamma", { op: "define", definition: fewer });
    expect(addressesOf("gamma")).toEqual(["10.5.1.7/24"]);
    expect(inPlace("gamma", "ip", "rule")).not.toContain("lookup 9");
    expect(way()).toBe("");
    // Its service goes on as it was started, and the next one is another.
    await lab.stop(fewer);
    await lab.serve(fewer);
    const its = lab.connect(fewer, "10.5.1.7");
    lab.client.ip("address", "add", "10.5.1.2/24", "dev", "wire0");
    await its.reads();
    await its.end();
  });

  test("its limits change while it is served: they hold for what runs, and nothing starts anew", async () => {
    const group = lab.groupOf("gamma");
    const programs = group.processes();
    expect(programs.length).toBeGreaterThan(0);
    const most = () =>
      group.folders
        .map((folder) => join(folder, "pids.max"))
        .filter(existsSync)
        .map((path) => readFileSync(path, "utf8"));
    const queue = () => inPlace("gamma", "tc", "qdisc", "show", "dev", placeNic);
    const drops = () => inPlace("gamma", "nft", "list", "ruleset");
    const limited = (limits: object) =>
      definition(7, "gamma", ["D3"], { addresses: ["10.5.1.7/24"], limits });
    expect([most(), queue().includes("tbf"), drops().includes("limit rate")]).toEqual([
      ["512\n"],
      false,
      false,
    ]);
    const limits = { processes: 300, cpuPercent: 70, memoryMb: 512, bandwidthMbit: 80 };
    await lab.must("gamma", { op: "define", definition: limited(limits) });
    expect(most()).toEqual(["300\n"]);
    expect(queue()).toContain("rate 80Mbit");
    expect(drops()).toMatch(/limit rate over 10(000000 bytes| mbytes)\/second/);
    await lab.must("gamma", { op: "define", definition: limited({}) });
    expect([most(), queue().includes("tbf"), drops().includes("limit rate")]).toEqual([
      ["512\n"],
      false,
      false,
    ]);
    expect(group.processes()).toEqual(expect.arrayContaining([...programs]));
    expect(lab.events.filter(({ event }) => event === "warning")).toEqual([]);
  });

  test("a limit that the kernel refuses is told once, and it is served on", async () => {
    const group = lab.groupOf("gamma");
    const programs = group.processes();
    const joins = 'for path in $1; do echo $$ > "$path"; done';
    const hold = 'held=$(head -c 100M /dev/zero | tr "\\0" x); echo held; sleep 1000';
    const words = ["-ec", `${joins}; ${hold}`, "sh", group.joinPaths.join(" ")];
    const holder = spawn("sh", words, { stdio: ["ignore", "pipe", "ignore"] });
    const ended = new Promise((resolve) => holder.once("exit", resolve));
    await new Promise((resolve) => holder.stdout.once("data", resolve).once("close", resolve));
    const limited = (limits: object) =>
      definition(7, "gamma", ["D3"], { addresses: ["10.5.1.7/24"], limits });
    try {
      for (let twice = 0; twice < 2; twice += 1)
        await lab.must("gamma", { op: "define", definition: limited({ memoryMb: 64 }) });
      const told = lab.events.filter(({ event }) => event === "warning");
      // Version 2 of control groups does not refuse, and kills.
      const isRefused = holder.signalCode === null;
      expect(told.map(({ code }) => code)).toEqual(isRefused ? ["limits.refused"] : []);
      expect(mounted("gamma")).toBe(true);
    } finally {
      await lab.must("gamma", { op: "define", definition: limited({}) });
      const others = group.processes().filter((pid) => !programs.includes(pid));
      for (const pid of others) process.kill(pid, "SIGKILL");
    }
    await ended;
  });

  test("nothing of one whose volume is mounted is taken away", async () => {
    expect(faultOf(await lab.forget(gamma))).toBe("stillMounted");
    expect(faultOf(await lab.define(definition(7, "gamma", ["D4"])))).toBe("stillMounted");
    expect(addressesOf("gamma")).toEqual(["10.5.1.7/24"]);
    await spareOf("gamma");
    expect(mounted("gamma")).toBe(true);
  });

  test("a disk goes from one to another, with what is on it", async () => {
    await lab.stop(gamma);
    expect(await lab.define(definition(7, "gamma", ["D4"]))).toEqual({ ok: true });
    expect(lab.traces("disks/").filter((line) => line.includes("D3"))).toEqual([]);
    await lab.stop(beta);
    const two = definition(1, "beta", ["D2", "D3"]);
    expect(await lab.define(two)).toEqual({ ok: true });
    await lab.serve(two);
    const files = lab.run("ls", join(lab.runDir, "places", "beta", "D3"));
    expect(files).toContain("gamma-nfs3-r0");
    // It goes back while the other volume of that one stays.
    await lab.stop(two);
    expect(await lab.define(beta)).toEqual({ ok: true });
    expect(await lab.define(gamma)).toEqual({ ok: true });
    await lab.serve(beta);
    await lab.serve(gamma);
  });

  test("a disk that is not there harms nobody, and is found when it comes", async () => {
    const lost = definition(9, "lost", ["NOSUCH"]);
    expect(await lab.define(lost)).toEqual({ ok: true });
    expect(lab.events).toContainEqual(
      expect.objectContaining({ event: "path", serial: "NOSUCH", up: false }),
    );
    const attached = await lab.work("lost", { op: "attach", disk: "NOSUCH" });
    expect(faultOf(attached)).toBe("diskLost");
    expect(await lab.forget(lost)).toEqual({ ok: true });
    expect(lab.traces("lost")).toEqual([]);
  });

  test("one that goes leaves nothing, and its name and number are free", async () => {
    await lab.stop(gamma);
    for (let twice = 0; twice < 2; twice += 1)
      expect(await lab.forget(gamma)).toEqual({ ok: true });
    expect(lab.traces("gamma")).toEqual([]);
    expect(lab.groupOf("gamma").folders.filter(existsSync)).toEqual([]);
    expect(lab.traces("D3")).toEqual([]);
    const again = definition(8, "gamma", ["D3"]);
    expect(await lab.define(again)).toEqual({ ok: true });
    expect(linkOf("gamma")).toContain("link/ether 02:dd:00:01:01:09 ");
    // Of an older word about the name nothing comes.
    expect(await lab.forget(gamma)).toEqual({ ok: true });
    await lab.serve(again);
    await lab.stop(again);
    expect(await lab.forget(again)).toEqual({ ok: true });
  });

  test("what is in the way of an end is told, and the end succeeds when it is gone", async () => {
    const stuck = definition(10, "stuck", ["D4"]);
    expect(await lab.define(stuck)).toEqual({ ok: true });
    const inTheWay = join(lab.runDir, "places", "stuck", "file");
    lab.run("touch", inTheWay);
    const refused = await lab.forget(stuck);
    expect(faultOf(refused)).toBe("ioError");
    lab.run("rm", inTheWay);
    expect(await lab.forget(stuck)).toEqual({ ok: true });
    expect(lab.traces("stuck")).toEqual([]);
  });

  test("all that time the client of the first one was served", async () => {
    const report = await client.report();
    expect(report).toMatchObject({
      verified: true,
      lostAckedWrites: 0,
      engines: [{ repeats: 0, statuses: {} }],
    });
    const gapMs = report.engines[0]?.read.longestGapMs ?? Number.POSITIVE_INFINITY;
    console.log(`longest gap of a reader beside all this: ${gapMs} ms`);
    await client.end();
  });

  test("killed with one that is served, and started without it: nothing of it is left", async () => {
    await lab.must("gamma", { op: "define", definition: gamma });
    await lab.serve(gamma);
    expect(mounted("gamma")).toBe(true);
    await lab.kill();
    expect(mounted("gamma")).toBe(true);
    expect(addressesOf("gamma")).toEqual(["10.5.0.107/24"]);
    mkdirSync(join(lab.runDir, "places", "older"), { recursive: true });
    await lab.start([alpha, { ...beta, wanted: "stopped" }, { ...gamma, wanted: "deleted" }]);
    expect(lab.traces("gamma")).toEqual([]);
    expect(lab.groupOf("gamma").folders.filter(existsSync)).toEqual([]);
    expect(lab.traces("older")).toEqual([]);
    expect(lab.traces("D3")).toEqual([]);
    // Those that are still there are ready as before, and it can come again.
    await lab.serve(alpha);
    await lab.must("gamma", { op: "define", definition: gamma });
    await lab.serve(gamma);
    await lab.stop(gamma);
    await lab.stop(alpha);
  });
});
