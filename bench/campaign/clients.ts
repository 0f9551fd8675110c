/** The NFS clients of a world (bench/clients), each a process in a client's namespace, and what they last said. */

import { join } from "node:path";
import { z } from "zod";
import { BenchError } from "../world/error.ts";
import { limitMs, waitFor } from "../world/exec.ts";
import { realTimeNode } from "../world/firmware.ts";
import { type PlannedServer, repoDir } from "../world/layout.ts";
import type { Started } from "../world/processes.ts";
import type { World } from "../world/world.ts";

const meterSchema = z.object({
  operationsPerS: z.number(),
  megabytesPerS: z.number(),
  gapMs: z.number(),
  longestGapMs: z.number(),
  medianMs: z.number(),
  p99Ms: z.number(),
  operations: z.number(),
});
const engineSchema = z.object({
  engine: z.string(),
  write: meterSchema,
  read: meterSchema,
  state: z.object({ graceWaitMs: z.number() }),
  verdict: z.object({ findings: z.array(z.string()) }),
});
const stateSchema = z.object({
  mark: z.string(),
  lostAckedWrites: z.number(),
  staleReads: z.number(),
  rolledBackReads: z.number(),
  phantomReads: z.number(),
  corruptReads: z.number(),
  ackedWrites: z.number(),
  reads: z.number(),
  opensReclaimed: z.number(),
  openFilesLost: z.number(),
  locksReclaimed: z.number(),
  locksLost: z.number(),
  refusals: z.number(),
  engines: z.array(engineSchema),
});
const lineSchema = z.discriminatedUnion("t", [
  stateSchema.extend({ t: z.literal("tick") }),
  stateSchema.extend({ t: z.literal("summary") }),
  stateSchema.extend({ t: z.literal("report"), verified: z.boolean() }),
  z.object({ t: z.literal("mark"), name: z.string() }),
  z.object({ t: z.literal("failure"), reason: z.string() }),
  z.object({ t: z.literal("error"), message: z.string() }),
]);
export type ClientState = z.infer<typeof stateSchema>;
export type ClientReport = ClientState & { readonly verified: boolean };

/** A client counts as going on while each of its engines completed an operation within this time. */
const livelyGapMsMax = 250;

export interface ClientOptions {
  readonly engines: string;
  readonly paceMs: number;
  /** A client has a machine of its own: what keeps this one busy must not keep it from its processor. */
  readonly realTime?: boolean;
}

const program = join(repoDir, "bench/clients/main.ts");
/** Below the firmware's main process (10), above everything ordinary. */
const clientPriority = 5;

export class Client {
  readonly name: string;
  readonly virtualServer: string;
  #last: ClientState | undefined;
  #mark = "";
  #reports: ClientReport[] = [];
  #failure: string | undefined;
  readonly #process: Started;

  /** Client number `index`, who works on one virtual server. */
  constructor(
    world: World,
    index: number,
    server: Pick<PlannedServer, "name" | "address" | "export">,
    { engines, paceMs, realTime }: ClientOptions,
  ) {
    const namespace = world.layout.namespaces.clients[index];
    if (namespace === undefined)
      throw new BenchError("badInput", "client", `there is no client ${index}`);
    this.name = `c${index + 1}`;
    this.virtualServer = server.name;
    this.#process = world.processes.start({
      role: `client-${this.name}`,
      cgroup: world.infra,
      inside: namespace,
      argv: [
        ...(realTime ? realTimeNode(clientPriority, program) : [process.execPath, program]),
        ...["--server", server.address, "--export", server.export, "--name", this.name],
        ...["--engines", engines, "--pace-ms", String(paceMs)],
      ],
      input: true,
      onLine: (line) => this.#hear(line),
    });
    void this.#process.ended.then((how) => {
      this.#failure ??= `ended: ${how}`;
    });
  }

  get last(): ClientState | undefined {
    return this.#last;
  }

  /** Throws when the client itself failed: its history then proves nothing. */
  lively(): boolean {
    this.#check();
    return (
      this.#last !== undefined &&
      this.#last.mark === this.#mark &&
      this.#last.engines.every(
        ({ read, write }) =>
          read.operations > 0 &&
          write.operations > 0 &&
          read.gapMs < livelyGapMsMax &&
          write.gapMs < livelyGapMsMax,
      )
    );
  }

  /** What was measured since the mark; undefined until it was heard. Throws when the client itself failed. */
  since(mark: string): ClientState | undefined {
    this.#check();
    return this.#last?.mark === mark ? this.#last : undefined;
  }

  /** Begins a new measurement of gaps under that name. */
  mark(name: string): void {
    this.#mark = name;
    this.#say({ cmd: "mark", name });
  }

  /** Everything read back and compared; also the gaps since the mark. */
  async report(timeoutMs: number, signal?: AbortSignal): Promise<ClientReport> {
    const wanted = this.#reports.length;
    this.#say({ cmd: "report", timeoutMs });
    return await waitFor(
      `report of ${this.name}`,
      () => {
        this.#check();
        return this.#reports[wanted];
      },
      { deadlineMs: timeoutMs + 5000, signal },
    );
  }

  #check(): void {
    if (this.#failure !== undefined)
      throw new BenchError("worldBroken", `client ${this.name}`, this.#failure);
  }

  #say(command: object): void {
    this.#process.child.stdin?.write(`${JSON.stringify(command)}\n`);
  }

  #hear(line: string): void {
    const said = lineSchema.safeParse(parse(line));
    if (!said.success) {
      this.#failure ??= `said something unknown: ${line.slice(0, 200)}`;
      return;
    }
    switch (said.data.t) {
      case "tick":
      case "summary":
        this.#last = said.data;
        return;
      case "report":
        this.#reports.push(said.data);
        return;
      case "failure":
        this.#failure ??= said.data.reason;
        return;
      case "error":
        this.#failure ??= said.data.message;
        return;
      case "mark":
        return;
    }
  }
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** Starts one client per client namespace, for one virtual server after another, and waits until all of them read and write. */
export async function startClients(world: World, options: ClientOptions): Promise<Client[]> {
  const { servers, namespaces } = world.layout;
  const clients = namespaces.clients.map((_, i) => {
    const server = servers[i % servers.length];
    if (!server) throw new BenchError("badInput", "client", "there is no virtual server");
    return new Client(world, i, server, options);
  });
  for (const client of clients) client.mark("begin");
  await allLively(clients, 2 * limitMs, world.signal);
  return clients;
}

/** Waits until every client reads and writes again. */
export async function allLively(
  clients: readonly Client[],
  deadlineMs: number,
  signal?: AbortSignal,
): Promise<void> {
  await waitFor("clients read and write", () => clients.every((client) => client.lively()), {
    deadlineMs,
    signal,
  });
}
