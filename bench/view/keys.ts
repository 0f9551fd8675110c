/** Keys, the actions that they and scripts ask for, and the lines that explain them. Pure. */
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { styled } from "./text.ts";

export type Action =
  | { readonly kind: "select"; readonly id: ControllerId }
  /** Injects the fault, or repairs it when it is in force already and a key asked. */
  | {
      readonly kind: "fault";
      readonly fault: string;
      readonly victim?: ControllerId;
      readonly toggle: boolean;
    }
  | { readonly kind: "takeover"; readonly by?: ControllerId }
  | { readonly kind: "giveback" }
  | { readonly kind: "repair" }
  | { readonly kind: "mark" }
  | { readonly kind: "shot"; readonly path: string }
  | { readonly kind: "quit" };

interface Key {
  readonly key: string;
  readonly label: string;
  readonly action: Action;
}

const toggle = (key: string, label: string, fault: string): Key => ({
  key,
  label,
  action: { kind: "fault", fault, toggle: true },
});

const first: readonly Key[] = [
  { key: "a", label: "", action: { kind: "select", id: "a" } },
  { key: "b", label: "select", action: { kind: "select", id: "b" } },
  toggle("k", "kill", "kill9"),
  toggle("f", "freeze", "freeze"),
  toggle("p", "power", "power"),
  toggle("n", "network", "link"),
  toggle("s", "serial", "serial"),
  toggle("x", "split", "split"),
  toggle("d", "disk path", "path"),
];
const ofServers: readonly Key[] = [
  toggle("g", "file server", "fileserver"),
  toggle("w", "hang", "hang"),
  toggle("i", "address", "address"),
  toggle("v", "device", "device"),
  toggle("o", "read-only", "readonly"),
];
const last: readonly Key[] = [
  toggle("m", "mqtt", "broker"),
  toggle("e", "end", "term"),
  { key: "t", label: "takeover", action: { kind: "takeover" } },
  { key: "h", label: "give back", action: { kind: "giveback" } },
  { key: "r", label: "repair all", action: { kind: "repair" } },
  { key: "c", label: "clear gaps", action: { kind: "mark" } },
  { key: "q", label: "quit", action: { kind: "quit" } },
];

/** What a key does; undefined for one that means nothing. Ctrl-C and Ctrl-D quit as well. */
export function actionOf(key: string): Action | undefined {
  if (key === "\x03" || key === "\x04") return { kind: "quit" };
  return [...first, ...ofServers, ...last].find((each) => each.key === key)?.action;
}

function helpOf(keys: readonly Key[]): string {
  return ` ${keys.map(({ key, label }) => (label === "" ? styled(key, "bold") : `${styled(key, "bold")} ${label}`)).join("  ")}`;
}

export const helpLines: readonly string[] = [first, ofServers, last].map(helpOf);
