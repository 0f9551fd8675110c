/**
 * One controller's daemon. Order of a start: configuration → timing proved → interfaces of an earlier life gone → the common volume read, which says
 * what virtual servers there are → the beat process (gates closed) → what else an earlier life left behind cleaned up → decisions → outside
 * (API, MQTT). Nothing is served before the decisions say so.
 */
import { performance } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { isDeleted } from "../core/definitions.ts";
import { deriveTiming, type Timing } from "../core/timing.ts";
import type { BeatCounters, FromBeat } from "../loop/channel.ts";
import type { Happening } from "../loop/controller-loop.ts";
import type { Config } from "../schema/config.ts";
import { explain } from "../schema/outcome.ts";
import { formatProblem } from "../schema/toml-document.ts";
import { begin, exitEarly, stopSignals } from "./begin.ts";
import { loadConfig } from "./config.ts";
import { createEventRing } from "./events.ts";
import { type Host, hostLoop } from "./host.ts";
import { openJournal } from "./journal.ts";
import { openOutside } from "./outside.ts";
import { createPerformer } from "./performer.ts";
import { openRecordStore } from "./record.ts";
import { watchUsage } from "./usage.ts";
import { createVolume } from "./volume.ts";
import { openMachine } from "./wiring.ts";

/** Exit codes of sysexits(3): what a supervisor may want to know. */
const exitConfig = 78;
const exitSoftware = 70;

/** Time to end file services and devices after everything was handed over. */
const tidyMs = 3000;

function log(message: string): void {
  process.stderr.write(`${new Date().toISOString()} ${message}\n`);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { config: { type: "string", default: "/etc/dyad/dyad.toml" } },
  });
  const loaded = await loadConfig(values.config);
  if (!loaded.ok) {
    for (const problem of loaded.problems) log(formatProblem(problem));
    process.exit(exitConfig);
  }
  const config = loaded.value;
  const timing = deriveTiming(config.timing);
  log(`timing: ${JSON.stringify(timing)}`);
  await run(values.config, config, timing);
}

async function run(configPath: string, config: Config, timing: Timing): Promise<void> {
  const startedMs = performance.now();
  const store = openRecordStore(config.controller.stateDir);
  const events = createEventRing(config.controller.id);
  let counters: BeatCounters = { links: {}, refused: {}, renewals: 0, tickLateMsMax: 0 };
  let loop: Host | undefined;
  const early: Happening[] = [];
  const happen = (happening: Happening) => {
    if (loop) loop.happen(happening);
    else early.push(happening);
  };

  let leaving = false;
  const fromBeat = (message: FromBeat) => {
    if (message.kind === "observation") happen({ kind: "seen", observation: message.observation });
    else if (message.kind === "reserved")
      happen({ kind: "reserved", token: message.token, answer: message.answer });
    else if (message.kind === "volumeWritten") volume.written(message);
    else if (message.kind === "counters") counters = message.counters;
    else if (message.kind === "log") log(`beat: ${message.message}`);
  };
  const { groups, definitions, carriers, configuration, initial, beat, common } = await begin(
    configPath,
    config,
    {
      timing,
      log,
      fromBeat,
      beatEnded(why) {
        if (leaving) return;
        // Without it no gate is renewed and no beat is sent: the partner takes over, and we start anew.
        log(`the beat process ended (${why}); this controller stops`);
        process.exit(exitSoftware);
      },
      failed(fault) {
        log(explain(fault));
        process.exit(exitSoftware);
      },
    },
  );

  const warning = (code: string, message: string) => {
    const event = events.add({ severity: "warning", code, message });
    log(`${event.severity} ${event.code}: ${event.message}`);
  };
  const setup = { definitions, carriers, groups };
  const machine = await openMachine(config, setup, {
    diskPath: (serial, up, reason) => happen({ kind: "diskPath", serial, up, reason }),
    diskFenced: (serial, reason) => happen({ kind: "diskFenced", serial, reason }),
    deviceLost: (serial, reason) => happen({ kind: "deviceLost", serial, reason }),
    volumeFailed: (serial, reason) => happen({ kind: "volumeFailed", serial, reason }),
    serviceExited: (virtualServer, reason) =>
      happen({ kind: "serviceExited", virtualServer, reason }),
    serviceHung: (virtualServer, reason) => happen({ kind: "serviceHung", virtualServer, reason }),
    addressLost: (virtualServer, reason) => happen({ kind: "addressLost", virtualServer, reason }),
    carrier: (up) => happen({ kind: "carrier", up }),
    warning,
    log,
  });
  if (!machine.ok) {
    log(explain(machine.fault));
    process.exit(exitSoftware);
  }

  const startedAt = new Date().toISOString();
  const journal = openJournal(
    `${config.controller.stateDir}/journal.jsonl`,
    { version: 1, startedAt, config, configuration, definitions },
    { log },
  );
  const usage = watchUsage(
    () =>
      (loop?.state() ?? initial).servers.flatMap((each) =>
        isDeleted(each) ? [] : [each.config.name],
      ),
    (name) => machine.value.usage(name),
  );
  const performer = createPerformer(definitions, machine.value, log);
  const volume = createVolume({
    common,
    beat: beat.send,
    total: config.shelf.coordinators.length,
    machine: machine.value,
    pair: config.pair.id,
    log,
  });
  const outside = openOutside({
    config,
    log,
    events,
    state: () => loop?.state() ?? initial,
    counted: () => ({
      uptimeMs: performance.now() - startedMs,
      links: Object.fromEntries(
        Object.entries(counters.links).map(([name, { malformed, silentMs }]) => [
          name,
          { malformed, silentMs },
        ]),
      ),
      refusedFrames: counters.refused,
      usage: usage.seen,
    }),
    command: (command) => happen({ kind: "command", command }),
  });
  loop = hostLoop({
    initial,
    coordinators: config.shelf.coordinators,
    disks: machine.value.disks,
    performer,
    volume,
    journal,
    persist: (record) => store.write(record),
    beat: beat.send,
    report: (report) => {
      const event = events.add(report);
      log(`${event.severity} ${event.code}: ${event.message}`);
    },
    answer: (id, answer) => outside.answered(id, answer),
    exit: (code, reason) => {
      if (leaving) return;
      leaving = true;
      log(`exit ${code}: ${reason}`);
      // A controller that fences itself ends at once; one that leaves tidies up, within a limit.
      if (code !== 0) process.exit(code);
      setTimeout(() => process.exit(code), tidyMs).unref();
      void Promise.allSettled([outside.close(), common.close(), machine.value.close()]).then(() =>
        process.exit(code),
      );
    },
    broken: (error) => {
      const told = error instanceof Error ? (error.stack ?? error.message) : String(error);
      log(`broken invariant, this controller stops: ${told}`);
      journal.flush();
      process.exit(exitSoftware);
    },
  });
  const realTime = machine.value.realTime();
  if (!realTime.ok) log(explain(realTime.fault));
  for (const happening of early.splice(0)) loop.happen(happening);
  loop.start(store.read());

  for (const signal of stopSignals) {
    process.off(signal, exitEarly);
    process.on(signal, () => happen({ kind: "shutdown", reason: `asked to stop (${signal})` }));
  }
  await outside.open();
}

await main();
