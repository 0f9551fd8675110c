/**
 * The machine of one controller and the works on it, without decisions: `machine-agent.ts CONFIG DEFINITIONS`, both files of JSON. Commands are JSON lines
 * on standard input, answers and events JSON lines on standard output. It ends when its input ends.
 */
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import type { Lifecycle, Work } from "../../../firmware-ts/core/effects.ts";
import { createPerformer } from "../../../firmware-ts/daemon/performer.ts";
import { configSchema, vlansOf } from "../../../firmware-ts/schema/config.ts";
import { definitionSchema } from "../../../firmware-ts/schema/definition.ts";
import type { Outcome } from "../../../firmware-ts/schema/outcome.ts";
import type { ReservationCommand } from "../../../firmware-ts/schema/reservation.ts";
import { openBenchMachine } from "../../../hal/bench/machine.ts";
import { openGroups, silenceEarlierLife } from "../../../hal/bench/places.ts";
import { openCarriers } from "../../../hal/linux/carriers.ts";
import { moveToOwnGroup } from "./own-group.ts";

/** `limitMs` of works that a test is not about. */
const limitMs = 60_000;

type Command =
  | { op: "work"; name: string; work: Work | Lifecycle; limitMs?: number }
  | { op: "reserve"; serial: string; command: ReservationCommand };

const say = (message: object) => process.stdout.write(`${JSON.stringify(message)}\n`);
const read = (path = "") => JSON.parse(readFileSync(path, "utf8"));
const must = <T>(outcome: Outcome<T>): T => {
  if (!outcome.ok) throw new Error(JSON.stringify(outcome.fault));
  return outcome.value;
};

const config = configSchema.parse(read(process.argv[2]));
const definitions = definitionSchema.array().parse(read(process.argv[3]));
const log = (message: string) => say({ event: "log", message });
// As a service manager starts a service that may divide its group.
moveToOwnGroup();
const groups = openGroups(config);
must(await silenceEarlierLife(config, groups, { log }));
const carriers = must(
  await openCarriers(config.data.nic, vlansOf(definitions.map(({ server }) => server))),
);
const setup = { definitions, carriers, groups };
const machine = must(
  await openBenchMachine(config, setup, {
    diskPath: (serial, up, reason) => say({ event: "path", serial, up, reason }),
    diskFenced: (serial, reason) => say({ event: "fenced", serial, reason }),
    deviceLost: (serial, reason) => say({ event: "deviceLost", serial, reason }),
    serviceExited: (name, reason) => say({ event: "exited", name, reason }),
    serviceHung: (name, reason) => say({ event: "hung", name, reason }),
    volumeFailed: (serial, reason) => say({ event: "volumeFailed", serial, reason }),
    addressLost: (name, reason) => say({ event: "addressLost", name, reason }),
    carrier: () => undefined,
    warning: (code, message) => say({ event: "warning", code, message }),
    log,
  }),
);
const performer = createPerformer(definitions, machine, log);
say({ event: "open" });

function perform(command: Command): Promise<unknown> {
  if (command.op === "reserve")
    return machine.disks.reserve(command.serial, command.command, limitMs);
  return new Promise((resolve) =>
    performer.perform(command.name, command.work, command.limitMs ?? limitMs, resolve),
  );
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, ...command } = JSON.parse(line) as { id: number } & Command;
  void perform(command).then((value) => say({ id, value }));
}
performer.close();
await machine.close();
process.exit();
