/** The two real witnesses for one contract: each with a state of its own, killed and started again by the test, at the same address. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readPairKey } from "../../hal/linux/pair-key.ts";
import type { Witness } from "../../hal/port/witness.ts";
import { builtInWitness } from "../../hal/witness/built-in.ts";
import { etcdWitness, prepareEtcd } from "../../hal/witness/etcd.ts";
import { freePort } from "../support/free-port.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";

export interface WitnessLab {
  readonly directory: string;
  readonly port: number;
  /** A way to it of the pair's own; `other` is another pair that it knows. */
  readonly client: (pair?: "alpha" | "other") => Witness;
  readonly process: () => ChildProcess;
  /** What it has printed so far, in all its lives. */
  readonly output: () => string;
  /** Returns when it answers. */
  readonly start: () => Promise<void>;
  readonly kill: () => Promise<void>;
  readonly remove: () => Promise<void>;
}

const cli = join(import.meta.dirname, "../../firmware-ts/cli/main.ts");

/** What both have in common: a child that is started, killed, and not left behind. */
function program(command: () => readonly [string, ...string[]]) {
  let child: ChildProcess | undefined;
  let output = "";
  const running = () => {
    if (child === undefined) throw new Error("the witness is not running");
    return child;
  };
  return {
    running,
    output: () => output,
    start() {
      const [name, ...words] = command();
      child = spawn(name, words, { stdio: ["ignore", "pipe", "pipe"] });
      for (const stream of [child.stdout, child.stderr])
        stream?.on("data", (chunk) => {
          output += chunk;
        });
    },
    async kill() {
      if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, "exit");
      child.kill("SIGKILL");
      await gone;
    },
  };
}

/** `dyad witness` as an operator runs it. */
export async function builtInLab(): Promise<WitnessLab> {
  const directory = mkdtempSync(join(tmpdir(), "dyad-witness-"));
  const port = await freePort();
  for (const pair of ["alpha", "other"])
    execFileSync(process.execPath, [cli, "witness", "init", "--pair", pair, "--state", directory]);
  const { running, output, start, kill } = program(() => [
    process.execPath,
    cli,
    ...["witness", "serve", "--state", directory, "--listen", `127.0.0.1:${port}`],
  ]);
  const client = (pair: "alpha" | "other" = "alpha") => {
    const key = readPairKey(join(directory, "keys", `${pair}.key`));
    if (!key.ok) throw new Error(key.fault.message);
    return builtInWitness({ host: "127.0.0.1", port, pair, key: key.value });
  };
  return {
    directory,
    port,
    client,
    process: running,
    output,
    async start() {
      start();
      await answering(client(), output);
    },
    kill,
    async remove() {
      await kill();
      rmSync(directory, { recursive: true });
    },
  };
}

/** A cluster of one, on loopback only. */
export async function etcdLab(): Promise<WitnessLab> {
  const directory = mkdtempSync(join(tmpdir(), "dyad-etcd-"));
  const [port, peerPort] = [await freePort(), await freePort()];
  const [url, peerUrl] = [`http://127.0.0.1:${port}`, `http://127.0.0.1:${peerPort}`];
  const { running, output, start, kill } = program(() => [
    "etcd",
    ...["--data-dir", join(directory, "data")],
    ...["--listen-client-urls", url, "--advertise-client-urls", url],
    ...["--listen-peer-urls", peerUrl, "--initial-advertise-peer-urls", peerUrl],
    ...["--initial-cluster", `default=${peerUrl}`],
  ]);
  const options = (pair: string) => ({ pair, endpoints: [new URL(url)] }) as const;
  const client = (pair: "alpha" | "other" = "alpha") => etcdWitness(options(pair));
  return {
    directory,
    port,
    client,
    process: running,
    output,
    async start() {
      start();
      for (const [index, pair] of (["alpha", "other"] as const).entries())
        await until(`etcd answers: ${output()}`, async () => {
          const identity = String(index + 1).repeat(32);
          return (await prepareEtcd(options(pair), identity, limitsMs.condition)).ok;
        });
    },
    kill,
    async remove() {
      await kill();
      rmSync(directory, { recursive: true });
    },
  };
}

async function answering(client: Witness, output: () => string): Promise<void> {
  await until(`the witness answers: ${output()}`, async () => {
    return (await client.list(limitsMs.condition)).ok;
  });
}
