/** `dyad` in this process: one command line against a daemon's socket. */
import { runCli } from "../../firmware-ts/cli/program.ts";

export interface Terminal {
  readonly interactive?: boolean;
  readonly answer?: string;
  readonly colour?: boolean;
  readonly defaultSocket?: string;
}

/** Words are apart by blanks; a tilde within a word is a blank. */
export async function runDyad(socket: string, command: string, terminal: Terminal = {}) {
  const ran = { code: -1, out: "", err: "", asked: "" };
  ran.code = await runCli(
    command.split(" ").map((word) => word.replaceAll("~", " ")),
    {
      io: {
        out: (text) => {
          ran.out += text;
        },
        err: (text) => {
          ran.err += text;
        },
        interactive: terminal.interactive ?? false,
        colour: terminal.colour ?? false,
        ask: async (question) => {
          ran.asked = question;
          return terminal.answer ?? "";
        },
      },
      defaultSocket: terminal.defaultSocket ?? socket,
      version: "1.2.3",
    },
  );
  return ran;
}
