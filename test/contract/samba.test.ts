/** The SMB service with a real smbd and `smbclient`, in the places of a controller. */
import type { ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createFileSystems } from "../../hal/linux/filesystems.ts";
import { killLeftovers } from "../../hal/linux/leftovers.ts";
import { placeNic } from "../../hal/linux/place/place.ts";
import { machineSid } from "../../hal/linux/samba/config.ts";
import { foldersIn } from "../../hal/linux/samba.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { must } from "./block-lab.ts";
import { openSmbLab, type SmbLab, type SmbNode, value } from "./samba-lab.ts";
import { endProcess, isAlive, rootMissing } from "./support/namespaces.ts";

const address = "10.6.0.10";
const passwordScript = new URL("../../scripts/smb-password.sh", import.meta.url).pathname;

describe.skipIf(rootMissing)("samba driver", () => {
  let lab: SmbLab;
  let node: SmbNode;
  let two: SmbNode;
  let image: string;
  let mountPoint: string;
  const children: ChildProcess[] = [];

  const mount = () => must("mount", "-o", "loop,nosuid,nodev,noexec", image, mountPoint);
  const isMounted = () => readFileSync("/proc/self/mountinfo", "utf8").includes(` ${mountPoint} `);
  /** Files of a client, in a folder of their own. */
  const clientFile = (name: string, content: Buffer | string) => {
    const path = join(lab.folder, "client", name);
    mkdirSync(join(lab.folder, "client"), { recursive: true });
    writeFileSync(path, content);
    return path;
  };
  const smb: SmbLab["smb"] = (at, commands, options) =>
    lab.smb(at, commands, { folder: join(lab.folder, "client"), ...options });
  /** A client that puts the same file under ever new names, and says which it has put, until it is told of an error. */
  const writer = (name: string) => {
    const script = `i=0; while smbclient -N //${address}/data -c "put big ${name}-$i"; do echo "put ${name}-$i"; i=$((i+1)); done 2>&1`;
    const folder = join(lab.folder, "client");
    const child = lab.client.spawn("sh", "-c", `cd ${folder} && ${script}`);
    children.push(child);
    let said = "";
    child.stdout?.on("data", (data: Buffer) => {
      said += String(data);
    });
    return {
      child,
      done: () => [...said.matchAll(/^put (\S+)$/gm)].map(([, file = ""]) => file),
      said: () => said,
    };
  };
  /** A client that connects and says nothing. */
  const talk = `require("node:net").connect(445, "${address}").on("error", () => {})`;
  const files = () => (existsSync(lab.runDir) ? readdirSync(lab.runDir) : []);
  /** The process groups of those that are there; one may be gone by the time that it is asked. */
  const groupsOf = (pids: readonly number[]) =>
    pids.flatMap((pid) => {
      try {
        const status = readFileSync(`/proc/${pid}/status`, "utf8");
        return [Number(/^NSpgid:\t(\d+)/m.exec(status)?.[1])];
      } catch {
        return [];
      }
    });

  beforeAll(async () => {
    lab = openSmbLab();
    node = await lab.addNode("one", address);
    two = await lab.addNode("two", "10.6.0.20");
    image = lab.makeVolume("v1");
    mountPoint = node.mountPoint("d1");
    clientFile("small", "hello\n");
    clientFile("big", randomBytes(3_000_000));
  });
  afterAll(async () => {
    await lab?.close();
  });
  beforeEach(async () => {
    if (!isMounted()) await mount();
    lab.client.ip("link", "set", "wire0", "up");
    value(await node.place.addresses.add(placeNic, address, 24));
  });
  afterEach(async () => {
    for (const child of children.splice(0)) await endProcess(child);
    value(await node.samba.close(limitsMs.condition));
    node.ends.length = 0;
    node.hung.length = 0;
    node.log.length = 0;
  });

  it("gives back what it was given, and a stop leaves neither process, file nor holder of the mount", async () => {
    await node.serve();
    const put = await smb(address, "mkdir sub; put big sub/big; get sub/big again; ls sub/*");
    expect(put).toMatchObject({ code: 0 });
    expect(put.out).toMatch(/big +A? +3000000/);
    const folder = join(lab.folder, "client");
    expect(readFileSync(join(folder, "again")).equals(readFileSync(join(folder, "big")))).toBe(
      true,
    );
    // The list of shares is made by programs of its own, which leave its process group.
    expect((await smb(address, "", { share: "" })).out).toBeDefined();
    expect(await lab.client.later("smbclient", "-N", "-L", address)).toMatch(/data +Disk/);
    const processes = node.processes();
    const { pid = 0 } = node.samba.state();
    expect(groupsOf(processes).some((group) => group !== pid)).toBe(true);
    await node.stop();
    expect(node.processes()).toEqual([]);
    expect(files()).toEqual([]);
    expect(node.ends).toMatchObject([{ pid, expected: true }]);
    await must("umount", mountPoint);
  });

  it("is killed under load in one step, and what it has acknowledged is there", async () => {
    await node.serve();
    const writers = ["a", "b", "c"].map(writer);
    await until("all write", () => writers.every((each) => each.done().length > 1));
    // Every process that answers a client is in the group that is killed.
    const { pid = 0 } = node.samba.state();
    await until("three clients are served", () => node.processes().length >= 6);
    for (const group of groupsOf(node.processes())) expect(group).toBe(pid);
    await node.stop();
    expect(node.processes()).toEqual([]);
    await must("umount", mountPoint);
    await must("e2fsck", "-fn", image);
    const ended = writers.map((each) => each.done());
    await mount();
    const big = readFileSync(join(lab.folder, "client", "big"));
    for (const name of ended.flat())
      expect(readFileSync(join(mountPoint, name)).equals(big), name).toBe(true);
    await node.serve();
    expect((await smb(address, `get ${ended[0]?.[0]} back`)).code).toBe(0);
  });

  it("tells no client of the errors of a sealed volume", async () => {
    const fileSystems = createFileSystems();
    await node.serve();
    const writers = ["s", "t", "u", "v"].map(writer);
    await until("all write", () => writers.every((each) => each.done().length > 0));
    // As the performer does it: killed, not waited for, and sealed.
    node.samba.kill();
    value(await fileSystems.seal(mountPoint));
    await node.stop();
    for (const each of writers) await until("it has heard", () => each.child.exitCode !== null);
    const statuses = writers.flatMap(({ said }) => said().match(/NT_STATUS_\w+/g) ?? []);
    const unreachable =
      /^NT_STATUS_(CONNECTION_\w+|INVALID_NETWORK_RESPONSE|IO_TIMEOUT|NETWORK_\w+|HOST_UNREACHABLE)$/;
    expect(statuses.filter((status) => !unreachable.test(status))).toEqual([]);
    expect(statuses.length).toBeGreaterThan(0);
    value(await fileSystems.abandon(mountPoint));
  });

  it("its death is reported at once, with all that it had started; that of a client's process is not", async () => {
    await node.serve();
    const one = writer("x");
    await until("it writes", () => one.done().length > 0);
    const { pid = 0 } = node.samba.state();
    expect(node.processes()).toContain(pid);
    process.kill(pid, "SIGKILL");
    await until("the end is told", () => node.ends.length > 0);
    expect(node.ends).toMatchObject([{ pid, expected: false, signal: "SIGKILL" }]);
    expect(node.processes()).toEqual([]);

    await node.serve();
    const first = node.samba.state().pid;
    expect(first).not.toBe(pid);
    const known = new Set(node.processes());
    const two = writer("y");
    let served: number | undefined;
    await until("a client is served", () => {
      served = node.processes().find((each) => !known.has(each));
      return served !== undefined;
    });
    process.kill(served ?? 0, "SIGKILL");
    await until("it is gone", () => !isAlive(served ?? 0));
    expect(node.ends).toHaveLength(1);
    expect((await smb(address, "put small after")).code).toBe(0);
    expect(node.samba.state().pid).toBe(first);
    two.child.kill("SIGKILL");
  });

  it("that is stopped is told of; one of whose clients only one gets no answer is not", async () => {
    await node.serve();
    const { pid = 0 } = node.samba.state();
    const known = node.processes();
    const caller = lab.client.spawn(process.execPath, "-e", talk);
    children.push(caller);
    let served: number | undefined;
    await until("a client is served", () => {
      served = node.processes().find((each) => !known.includes(each));
      return served !== undefined;
    });
    process.kill(served ?? 0, "SIGSTOP");
    // Two questions at least: what answers them is a process of its own.
    await new Promise((resolve) => setTimeout(resolve, 3000));
    expect(node.hung).toEqual([]);
    process.kill(pid, "SIGSTOP");
    await until("it is told", () => node.hung.length > 0);
    expect(node.hung[0]).toContain("stands still");
    await node.stop();
    const told = node.hung.length;
    await node.serve();
    await new Promise((resolve) => setTimeout(resolve, 2000));
    expect(node.hung.length).toBe(told);
  });

  it("a spare waits without volume and address, beside one that serves, and then serves what is there", async () => {
    await node.serve();
    value(await node.samba.prepare(node.service()));
    await node.samba.spareHeld();
    const { sparePid = 0 } = node.samba.state();
    expect(isAlive(sparePid)).toBe(true);
    await node.stop();
    expect(isAlive(sparePid)).toBe(true);
    expect(node.place.inside(() => readFileSync("/proc/thread-self/net/tcp", "utf8"))).not.toMatch(
      / 00000000:01BD 00000000:0000 0A /,
    );
    // Its volume is not held by it, and may be another's meanwhile.
    await must("umount", mountPoint);
    value(await node.place.addresses.remove(placeNic, address, 24));
    const other = lab.makeVolume("other");
    await must("mount", "-o", "loop", other, mountPoint);
    await must("umount", mountPoint);
    await mount();
    writeFileSync(join(mountPoint, "mine"), "there\n", { mode: 0o644 });
    value(await node.place.addresses.add(placeNic, address, 24));
    await node.serve();
    expect(node.samba.state()).toEqual({ pid: sparePid, sparePid: undefined });
    expect((await smb(address, "get mine")).code).toBe(0);
    expect(readFileSync(join(lab.folder, "client", "mine"), "utf8")).toBe("there\n");
  });

  it("a spare of another service is ended, and one that died is no obstacle", async () => {
    value(await node.samba.prepare(node.service({ workgroup: "OTHER" })));
    const { sparePid = 0 } = node.samba.state();
    value(await node.samba.prepare(node.service()));
    expect(isAlive(sparePid)).toBe(false);
    await node.samba.spareHeld();
    const next = node.samba.state().sparePid ?? 0;
    process.kill(next, "SIGKILL");
    await node.serve();
    expect(node.samba.state().pid).not.toBe(next);
  });

  it("starting twice is one server; another service is refused while it serves", async () => {
    await node.serve();
    const { pid } = node.samba.state();
    expect(await node.samba.start(node.service())).toEqual({ ok: true, value: pid });
    const other = await node.samba.start(node.service({ guest: false }));
    expect(!other.ok && other.fault.code).toBe("refused");
  });

  it("a kill while it starts leaves none behind", async () => {
    const starting = node.samba.start(node.service());
    node.samba.kill();
    await starting;
    await node.stop();
    expect(node.processes()).toEqual([]);
  });

  it("does not count as serving when its volume is not there, or one of its addresses", async () => {
    const absent = [{ name: "data", path: "/srv/absent", shared: false }];
    value(await node.samba.start(node.service({ shares: absent })));
    const probed = await node.samba.probe(3000);
    expect(!probed.ok && probed.fault.code).toBe("serviceSilent");
    await node.stop();
    value(await node.samba.start(node.service({ addresses: [address, "10.6.0.11"] })));
    expect((await node.samba.probe(3000)).ok).toBe(false);
  });

  it("leaves no half of a connection behind that swallows what clients say to the next owner", async () => {
    await node.serve();
    const caller = lab.client.spawn(process.execPath, "-e", talk);
    children.push(caller);
    const halves = () => node.place.inside(() => must("ss", "-Htan", "sport", "=", ":445"));
    await until("it is connected", async () => (await halves()).includes("ESTAB"));
    // As behind a closed gate: neither the end of the connection nor an answer to it gets through.
    lab.client.ip("link", "set", "wire0", "down");
    await node.stop();
    expect(await halves()).toBe("");
  });

  describe("with users", () => {
    const users = [
      { name: "anna", uid: 1001, gid: 100 },
      { name: "berta", uid: 1002, gid: 1002 },
    ];
    /** As an operator sets it (docs/design/0029-samba.md). */
    const setPassword = async (user: string, password: string) => {
      const line = 'printf "%s\\n%s\\n" "$1" "$1" | "$0" one "$2"';
      await must("sh", "-c", line, passwordScript, password, user);
    };

    it("knows them by their passwords, which lie on the volume, and nobody else", async () => {
      await must("chmod", "777", mountPoint);
      await node.serve({ guest: false, users });
      await setPassword("anna", "secret");
      await expect(setPassword("carla", "secret")).rejects.toThrow();
      expect(await smb(address, "put small hers", { user: "anna%secret" })).toMatchObject({
        code: 0,
      });
      expect(statSync(join(mountPoint, "hers"))).toMatchObject({ uid: 1001, gid: 100 });
      for (const user of ["anna%wrong", "berta%", "carla%secret", undefined]) {
        const refused = await smb(address, "ls", user === undefined ? {} : { user });
        expect(refused.code, user).not.toBe(0);
        expect(refused.out).toMatch(/NT_STATUS_(LOGON_FAILURE|ACCESS_DENIED|ACCOUNT_DISABLED)/);
      }
      // Elsewhere it is the same server to her.
      const sid = async () =>
        await lab.client.later("rpcclient", "-U", "anna%secret", address, "-c", "lookupnames anna");
      const before = await sid();
      expect(before).toContain(`${machineSid(node.service())}-`);
      await node.stop();
      await node.serve({ guest: false, users });
      expect(await sid()).toBe(before);
      expect((await smb(address, "get hers", { user: "anna%secret" })).code).toBe(0);
    });

    it("what is Dyad's is out of their reach, by its name, by another one, and by way of a link", async () => {
      await must("chmod", "777", mountPoint);
      await node.serve({ guest: true, users });
      await setPassword("anna", "secret");
      symlinkSync(".dyad/smb/smbpasswd", join(mountPoint, "link"));
      await must("chmod", "-R", "a+rX", join(mountPoint, ".dyad"));
      for (const path of [
        ".dyad/smb/smbpasswd",
        ".DYAD/smb/smbpasswd",
        "link",
        "./.dyad/../link",
      ]) {
        const got = await smb(address, `get ${path} stolen`, { user: "anna%secret" });
        expect(got.code, path).not.toBe(0);
      }
      for (const commands of ["rename .dyad mine", "deltree .dyad", "rmdir .dyad"])
        await smb(address, commands, { user: "anna%secret" });
      expect((await smb(address, "ls", { user: "anna%secret" })).out).not.toContain(".dyad");
      expect(existsSync(join(mountPoint, ".dyad/smb/smbpasswd"))).toBe(true);
      await must("rm", join(mountPoint, "link"));
    });
  });

  describe("what it has acknowledged", () => {
    it("is on the disk, also what it has copied by itself", async () => {
      await node.serve();
      expect((await smb(address, "put big whole; scopy whole copy")).code).toBe(0);
      const big = readFileSync(join(lab.folder, "client", "big"));
      expect((await lab.afterCrash(image, "whole"))?.equals(big)).toBe(true);
      expect((await lab.afterCrash(image, "copy"))?.equals(big)).toBe(true);
    });

    it("is not, where writing through is given up; what somebody has read is all the same", async () => {
      await node.serve({ writeThrough: false });
      const big = readFileSync(join(lab.folder, "client", "big"));
      expect((await smb(address, "put big lazy; put big read")).code).toBe(0);
      expect((await lab.afterCrash(image, "lazy"))?.equals(big) ?? false).toBe(false);
      expect((await smb(address, "get read back")).code).toBe(0);
      expect((await lab.afterCrash(image, "read"))?.equals(big)).toBe(true);
    });
  });

  it("two servers of one subnet, each in its place, have each their own volume and their own clients", async () => {
    const at = two.mountPoint("d1");
    await must("mount", "-o", "loop", lab.makeVolume("v2"), at);
    try {
      await node.serve();
      await two.serve();
      expect((await smb(address, "put small ours")).code).toBe(0);
      expect((await smb(two.address, "put big theirs")).code).toBe(0);
      expect((await smb(address, "ls")).out).not.toContain("theirs");
      expect((await smb(two.address, "ls")).out).not.toContain("ours");
      // What is not there for it cannot be asked for.
      const { pid } = two.samba.state();
      expect(readFileSync(`/proc/${pid}/mountinfo`, "utf8")).not.toContain(mountPoint);
      await node.stop();
      expect((await smb(two.address, "get theirs back")).code).toBe(0);
    } finally {
      await two.samba.close(limitsMs.condition);
      await must("umount", at);
    }
  });
});

describe.skipIf(rootMissing)("an SMB service whose controller is gone", () => {
  const agent = new URL("./samba-agent.ts", import.meta.url).pathname;

  it("lives on until its next life ends it; its spare does not; and neither was ever of real time", async () => {
    const lab = openSmbLab();
    const child = lab.controller.spawn(process.execPath, agent, lab.folder, lab.runDir);
    try {
      let said = "";
      child.stdout?.on("data", (data: Buffer) => {
        said += String(data);
      });
      await until("it serves", () => said.includes("\n"));
      const { pid, sparePid } = JSON.parse(said) as { pid: number; sparePid: number };
      const policies = await must("sh", "-c", `chrt -ap ${pid}; chrt -ap ${sparePid}`);
      expect(policies).not.toContain("SCHED_FIFO");
      expect(policies).toContain("SCHED_OTHER");
      await endProcess(child);
      await until("the spare has ended", () => !isAlive(sparePid));
      expect(isAlive(pid)).toBe(true);
      // Another controller's on the same machine is none of its business.
      const endAll = (runDir: string) =>
        killLeftovers("smbd", foldersIn(runDir), limitsMs.condition);
      value(await endAll(`${lab.runDir}-other`));
      expect(isAlive(pid)).toBe(true);
      value(await endAll(lab.runDir));
      // It is somebody else's child by now.
      await until("it has ended", () => !isAlive(pid));
    } finally {
      await endProcess(child);
      await lab.close();
    }
  });
});
