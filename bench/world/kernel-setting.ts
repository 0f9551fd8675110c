/**
 * The one setting of the machine's kernel that the firmware changes (hal/linux/grace-periods.ts). On an appliance it is the firmware's to
 * keep; here the machine is somebody else's, and gets back what it had.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { expeditedPath } from "../../hal/linux/grace-periods.ts";
import { Ledger, ledgerDirectory } from "./ledger.ts";

/** Writes down what to restore, before a controller starts. Another world may have changed the setting already: then what it found. */
export function rememberSetting(ledger: Ledger): void {
  const found = worlds().flatMap((prefix) => recorded(new Ledger(prefix)))[0];
  const value = found ?? read();
  if (value !== undefined) ledger.setting(expeditedPath, value);
}

/** Gives back what was found, unless another world still needs what is there: the last one gives it back. */
export function restoreSetting(ledger: Ledger): void {
  const others = worlds().map((prefix) => new Ledger(prefix));
  if (others.some((each) => each.path !== ledger.path && recorded(each).length > 0)) return;
  const [value] = recorded(ledger);
  if (value !== undefined && value !== read()) writeFileSync(expeditedPath, value);
}

function worlds(): string[] {
  if (!existsSync(ledgerDirectory)) return [];
  return readdirSync(ledgerDirectory).flatMap((name) =>
    name.endsWith(".jsonl") ? [name.slice(0, -".jsonl".length)] : [],
  );
}

function recorded(ledger: Ledger): string[] {
  return ledger
    .entries()
    .flatMap((entry) =>
      entry.kind === "setting" && entry.path === expeditedPath ? [entry.value] : [],
    );
}

/** Undefined on a kernel without it. */
function read(): string | undefined {
  try {
    return readFileSync(expeditedPath, "utf8").trim();
  } catch {
    return undefined;
  }
}
