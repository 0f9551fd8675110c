/** `dyad panel`: the controller's front panel, drawn in the terminal and pressed with the keyboard. */
import type { PanelButton, PanelView } from "../schema/status.ts";
import { call, get, parse, refusal } from "./client.ts";
import { type ExitCode, exitCodes } from "./exit.ts";
import { type CommonOptions, type Io, printJson } from "./io.ts";
import { panelBox } from "./panel-box.ts";

const redrawMs = 200;

/** What terminals send for the keys that stand for buttons. */
const keys: Readonly<Record<string, PanelButton>> = {
  "\x1b[A": "up",
  "\x1b[B": "down",
  k: "up",
  j: "down",
  "\r": "ok",
  "\n": "ok",
  "\x7f": "back",
  "\b": "back",
  "\x1b": "back",
};

/** Presses one button and shows what the panel says then. */
export async function pressButton(
  io: Io,
  options: CommonOptions,
  button: string,
): Promise<ExitCode> {
  const { panelViewSchema } = await import("../schema/status.ts");
  const answer = await call(options.socket, "POST", "/v1/panel/press", { button });
  if (answer.status !== 200) throw await refusal(answer);
  printView(io, options, parse(answer.text, panelViewSchema).value);
  return exitCodes.ok;
}

/** Shows the panel: live on a terminal until q or ctrl-c, once otherwise. */
export async function showPanel(
  io: Io,
  options: CommonOptions,
  terminal: NodeJS.ReadStream | undefined,
): Promise<ExitCode> {
  const { panelViewSchema } = await import("../schema/status.ts");
  const read = async () => (await get(options.socket, "/v1/panel", panelViewSchema)).value;
  if (!io.interactive || terminal === undefined || options.output === "json") {
    printView(io, options, await read());
    return exitCodes.ok;
  }
  const pressed: string[] = [];
  let wake = () => {};
  const onKey = (data: string) => {
    pressed.push(data);
    wake();
  };
  terminal.setRawMode(true).setEncoding("utf8").on("data", onKey).resume();
  try {
    await live(io, options, read, pressed, (resolve) => {
      wake = resolve;
    });
  } finally {
    terminal.setRawMode(false).off("data", onKey).pause();
  }
  return exitCodes.ok;
}

async function live(
  io: Io,
  options: CommonOptions,
  read: () => Promise<PanelView>,
  pressed: string[],
  onWake: (resolve: () => void) => void,
): Promise<void> {
  for (let first = true; ; first = false) {
    const box = [...panelBox(await read(), io.colour), "q: leave"];
    // Each drawing replaces the one before it.
    io.out(`${first ? "" : `\x1b[${box.length}F`}${box.map((line) => `${line}\x1b[K\n`).join("")}`);
    if (pressed.length === 0)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, redrawMs);
        onWake(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    for (const key of pressed.splice(0)) {
      if (key === "q" || key === "\x03") return;
      const button = keys[key];
      if (button !== undefined) await call(options.socket, "POST", "/v1/panel/press", { button });
    }
  }
}

function printView(io: Io, options: CommonOptions, view: PanelView): void {
  if (options.output === "json") printJson(io, view);
  else io.out(`${panelBox(view, io.colour).join("\n")}\n`);
}
