/**
 * Runs the file service driver inside a throw-away controller (network and mount namespaces of its own) for the tests: commands as JSON
 * lines on standard input, answers and events as JSON lines on standard output. It ends when its input ends.
 */
import { createInterface } from "node:readline";
import { done } from "../../firmware-ts/schema/outcome.ts";
import type { FileServiceSpec } from "../../hal/linux/ganesha/config.ts";
import { createPortMapper } from "../../hal/linux/ganesha/port-mapper.ts";
import { createGanesha } from "../../hal/linux/ganesha.ts";
import { here } from "../../hal/linux/place/programs.ts";
import { limitsMs } from "../support/limits.ts";

type Command =
  | { op: "kill" | "state" }
  | { op: "prepare" | "start"; spec: FileServiceSpec }
  | { op: "spareHeld" }
  | { op: "probe"; deadlineMs: number }
  | { op: "stop" | "close"; timeoutMs: number };

const say = (message: object) => process.stdout.write(`${JSON.stringify(message)}\n`);
const portMapper = createPortMapper(here);
const ganesha = createGanesha({
  name: process.argv[2] ?? "vs1",
  runDir: "/run/dyad-test",
  portMapper,
  place: here,
  log: (message) => say({ event: "log", message }),
  onEnd: (end) => say({ event: "end", ...end }),
  onHung: (reason) => say({ event: "hung", reason }),
});

async function perform(command: Command): Promise<unknown> {
  switch (command.op) {
    case "prepare":
      return await ganesha.prepare(command.spec);
    case "spareHeld":
      return await ganesha.spareHeld().then(() => done);
    case "start":
      return await ganesha.start(command.spec);
    case "probe":
      return await ganesha.probe(command.deadlineMs);
    case "stop":
      return await ganesha.stop(command);
    case "close":
      return await ganesha.close(command);
    case "kill":
      return ganesha.kill();
    case "state":
      return ganesha.state();
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, ...command } = JSON.parse(line) as { id: number } & Command;
  const startedAt = performance.now();
  void perform(command).then((value) => say({ id, value, ms: performance.now() - startedAt }));
}
await ganesha.close({ timeoutMs: limitsMs.condition });
await portMapper.stop();
