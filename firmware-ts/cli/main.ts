/** `dyad`: the process around the command tree. */
import packageJson from "../../package.json" with { type: "json" };
import { runCli } from "./program.ts";

// A reader that has seen enough (`dyad events | head`) is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  process.exit(error.code === "EPIPE" ? 0 : 1);
});

async function ask(question: string): Promise<string> {
  const { createInterface } = await import("node:readline/promises");
  const reader = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await reader.question(question);
  } finally {
    reader.close();
  }
}

const interactive = process.stdin.isTTY === true && process.stdout.isTTY === true;
process.exitCode = await runCli(process.argv.slice(2), {
  io: {
    out: (text) => process.stdout.write(text),
    err: (text) => process.stderr.write(text),
    interactive,
    colour: process.stdout.isTTY === true && process.env.NO_COLOR === undefined,
    ask,
  },
  defaultSocket: "/run/dyad/dyad.sock",
  version: packageJson.version,
  terminal: interactive ? process.stdin : undefined,
});
