/** The start of the daemon while nobody can say what it may serve: the coordinator disks are out of reach. */
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { rememberSettings, restoreSettings } from "../../bench/world/kernel-settings.ts";
import { Ledger } from "../../bench/world/ledger.ts";
import type { Config } from "../../firmware-ts/schema/config.ts";
import { formatConfig } from "../../firmware-ts/schema/config-text.ts";
import { controlGroupOf } from "../../hal/bench/places.ts";
import { removeControlGroups } from "../../hal/linux/control-groups/groups.ts";
import { Pair } from "../../hal/sim/pair.ts";
import { limitsMs } from "../support/limits.ts";
import { newFolder } from "../support/shelf-process.ts";
import { until } from "../support/until.ts";
import { isAlive, rootMissing } from "./support/namespaces.ts";

describe.skipIf(rootMissing)("a start without coordinator disks", () => {
  const folder = newFolder();
  // A start sets them for the whole machine.
  const ledger = new Ledger("daemon-start");

  beforeAll(() => {
    ledger.begin();
    rememberSettings(ledger);
  });

  afterAll(async () => {
    restoreSettings(ledger);
    ledger.remove();
    await removeControlGroups(controlGroupOf(config()), limitsMs.condition);
    folder.remove();
  });

  const config = (): Config => ({
    ...new Pair().config("a"),
    controller: {
      id: "a",
      stateDir: join(folder.path, "state"),
      runDir: join(folder.path, "run"),
    },
    pair: { id: 17, keyFile: join(folder.path, "key") },
    api: { socket: join(folder.path, "run", "dyad.sock") },
    virtualServers: [],
  });

  /** In a network of its own, where nothing is reached. */
  function start() {
    const path = join(folder.path, "dyad.toml");
    writeFileSync(join(folder.path, "key"), Buffer.alloc(32, 7), { mode: 0o600 });
    writeFileSync(path, formatConfig(config()));
    const words = ["--net", process.execPath, "--single-threaded-gc"];
    const child = spawn("unshare", [...words, "firmware-ts/daemon/main.ts", "--config", path], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    let log = "";
    child.stderr.on("data", (chunk) => {
      log += String(chunk);
    });
    const ended = new Promise<number | string>((resolve) =>
      child.once("exit", (code, signal) => resolve(code ?? signal ?? "?")),
    );
    const { pid } = child;
    if (pid === undefined) throw new Error("not started");
    return { pid, child, ended, log: () => log };
  }

  const childrenOf = (pid: number) =>
    readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").map(Number);

  test("waits, says once for what, and ends at once when it is asked to", async () => {
    const daemon = start();
    try {
      await until("it waits", () => daemon.log().includes("waiting for a majority"));
      const [beat] = childrenOf(daemon.pid);
      expect(beat !== undefined && isAlive(beat)).toBe(true);
      // The beat process has nothing to open yet, and ends with the main process.
      daemon.child.kill("SIGTERM");
      expect(await daemon.ended).toBe(0);
      await until("the beat process is gone", () => beat === undefined || !isAlive(beat));
      expect(daemon.log().match(/waiting for a majority/g)).toHaveLength(1);
      expect(daemon.log()).toMatch(/waiting for a majority of the coordinator disks: .*c1/);
    } finally {
      daemon.child.kill("SIGKILL");
    }
  });
});
