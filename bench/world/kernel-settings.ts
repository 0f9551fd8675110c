/**
 * What the firmware changes of the machine's kernel (hal/linux/grace-periods.ts). On an appliance that is the firmware's to
 * keep; here the machine is somebody else's, and gets back what it had.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import {
  expeditedPath,
  gracePeriodThreads,
  lowerGracePeriods,
} from "../../hal/linux/grace-periods.ts";
import { schedulingOf } from "../../hal/linux/processes.ts";
import { SCHED_OTHER } from "../../hal/linux/syscalls.ts";
import { Ledger, ledgerDirectory } from "./ledger.ts";

interface Setting {
  /** As it is called in the ledger: a file below /sys where it is one. */
  readonly path: string;
  /** Undefined on a kernel without it. */
  readonly read: () => "0" | "1" | undefined;
  readonly restore: (value: string) => void;
}

const settings: readonly Setting[] = [
  {
    path: expeditedPath,
    read: () => {
      try {
        return readFileSync(expeditedPath, "utf8").trim() === "1" ? "1" : "0";
      } catch {
        return undefined;
      }
    },
    restore: (value) => writeFileSync(expeditedPath, value),
  },
  {
    path: "real-time priority of grace periods",
    read: () => {
      const policies = gracePeriodThreads().map((pid) => schedulingOf(pid).policy);
      if (policies.length === 0) return undefined;
      return policies.includes(SCHED_OTHER) ? "0" : "1";
    },
    restore: (value) => {
      if (value === "0") lowerGracePeriods();
    },
  },
];

/** Writes down what to restore, before a controller starts. Another world may have changed a setting already: then what it found. */
export function rememberSettings(ledger: Ledger): void {
  for (const setting of settings) {
    const found = worlds().flatMap((prefix) => recorded(new Ledger(prefix), setting))[0];
    const value = found ?? setting.read();
    if (value !== undefined) ledger.setting(setting.path, value);
  }
}

/** Gives back what was found, unless another world still needs what is there: the last one gives it back. */
export function restoreSettings(ledger: Ledger): void {
  const others = worlds()
    .map((prefix) => new Ledger(prefix))
    .filter(({ path }) => path !== ledger.path);
  for (const setting of settings) {
    if (others.some((each) => recorded(each, setting).length > 0)) continue;
    const [value] = recorded(ledger, setting);
    if (value !== undefined && value !== setting.read()) setting.restore(value);
  }
}

function worlds(): string[] {
  if (!existsSync(ledgerDirectory)) return [];
  return readdirSync(ledgerDirectory).flatMap((name) =>
    name.endsWith(".jsonl") ? [name.slice(0, -".jsonl".length)] : [],
  );
}

function recorded(ledger: Ledger, { path }: Setting): string[] {
  return ledger
    .entries()
    .flatMap((entry) => (entry.kind === "setting" && entry.path === path ? [entry.value] : []));
}
