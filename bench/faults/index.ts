/** All faults, in the order in which a campaign does them. */
import { BenchError } from "../world/error.ts";
import { broker, link, path, power, serial, split } from "./cables.ts";
import type { Fault } from "./fault.ts";
import { crash, device, fileserver, freeze, kill9, term } from "./processes.ts";
import { address, hang, readonly } from "./served.ts";

export const faults: readonly Fault[] = [
  kill9,
  crash,
  freeze,
  power,
  link,
  serial,
  split,
  fileserver,
  hang,
  address,
  device,
  readonly,
  path,
  broker,
  term,
];

/** Throws `badInput` that lists the names when there is no such fault. */
export function faultNamed(name: string): Fault {
  const found = faults.find((each) => each.name === name);
  if (found) return found;
  const names = faults.map((each) => each.name).join(", ");
  throw new BenchError("badInput", "fault", `expected one of ${names}, not "${name}"`);
}
