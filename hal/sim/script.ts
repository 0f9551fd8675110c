/**
 * Scenario scripts: commands, then after `----` the complete trace that they must give. Lines that begin with # are for the reader.
 * `UPDATE=1` writes the traces anew: inspect the difference, and commit it only if you understand what caused it.
 */
import { whyNotLinearizable } from "./history.ts";
import { Violation } from "./invariants.ts";
import { obey } from "./orders.ts";
import { type ClientsSetup, Pair, type PairSetup } from "./pair.ts";

interface Block {
  readonly comment: readonly string[];
  readonly commands: readonly string[];
  readonly expected: readonly string[];
}

export function parseScript(text: string): Block[] {
  return text
    .trimEnd()
    .split(/\n\n+/)
    .map((part) => {
      const lines = part.split("\n");
      const bar = lines.indexOf("----");
      const head = bar < 0 ? lines : lines.slice(0, bar);
      return {
        comment: head.filter((line) => line.startsWith("#")),
        commands: head.filter((line) => line !== "" && !line.startsWith("#")),
        expected: bar < 0 ? [] : lines.slice(bar + 1),
      };
    });
}

/** Runs a script and gives it back with the traces that it really gave. */
export function runScript(text: string): { readonly text: string; readonly pair: Pair } {
  const blocks = parseScript(text);
  let pair: Pair | undefined;
  const parts: string[] = [];
  for (const { comment, commands } of blocks) {
    const before = pair?.trace.length ?? 0;
    for (const command of commands) {
      const words = command.split(/\s+/);
      if (words[0] === "pair") {
        if (pair) throw new Error("script: the pair comes first and once");
        pair = new Pair(setupOf(words.slice(1)));
      } else {
        pair ??= new Pair();
        obey(pair, words);
      }
    }
    const trace = pair?.trace.slice(before) ?? [];
    const body = commands.length === 0 ? comment : [...comment, ...commands, "----", ...trace];
    parts.push(body.join("\n"));
  }
  if (!pair) throw new Error("script: no commands");
  const why = whyNotLinearizable(pair.history);
  if (why !== undefined) throw new Violation(`linearizable: ${why}`);
  return { text: `${parts.join("\n\n")}\n`, pair };
}

function setupOf(words: readonly string[]): PairSetup {
  const has = (word: string) => words.includes(word);
  const number = (name: string) => {
    const found = words.find((word) => word.startsWith(`${name}=`));
    return found === undefined ? undefined : Number(found.split("=")[1]);
  };
  const coordinators = number("coordinators");
  const servers = number("servers");
  const spares = number("spares");
  const clients: ClientsSetup = {
    perServer: number("clients") ?? 0,
    thinkMs: number("think") ?? 20,
    patient: has("patient"),
  };
  return {
    ...(coordinators ? { coordinators } : {}),
    ...(servers ? { servers } : {}),
    ...(spares ? { spares } : {}),
    links: { serial: !has("no-serial") },
    autoGiveback: has("auto-giveback"),
    ...(clients.perServer > 0 ? { clients } : {}),
    tellsWorks: has("works"),
  };
}
