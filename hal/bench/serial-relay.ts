/**
 * Process entry: the serial cable of the bench. Two pseudo-terminals, and between them a wire that can be cut and made noisy.
 *
 *     node hal/bench/serial-relay.ts LINK_A LINK_B
 *
 * Commands, JSON lines on standard input: `{"mode":"pass"|"cut"|"corrupt"|"babble"}` and `{"forget":"a"|"b"}`; each is answered by
 * a line with the state. `corrupt` flips a bit in every eighth byte; `babble` adds random bytes in both directions.
 * It ends with its standard input.
 */
import { randomBytes } from "node:crypto";
import { createInterface } from "node:readline";
import { z } from "zod";
import { openPty } from "./pty.ts";

const babbleIntervalMs = 5;
const babbleBytes = 48;
const commandSchema = z.union([
  z.strictObject({ mode: z.enum(["pass", "cut", "corrupt", "babble"]) }),
  z.strictObject({ forget: z.enum(["a", "b"]) }),
]);

const [linkA, linkB] = process.argv.slice(2);
if (linkA === undefined || linkB === undefined)
  throw new Error("usage: serial-relay LINK_A LINK_B");

let mode: "pass" | "cut" | "corrupt" | "babble" = "pass";
let carried = 0;
let dropped = 0;

function carry(data: Buffer): Buffer | undefined {
  if (mode === "cut") {
    dropped += data.length;
    return undefined;
  }
  carried += data.length;
  if (mode !== "corrupt") return data;
  return Buffer.from(data.map((byte, i) => (i % 8 === 0 ? byte ^ 0x10 : byte)));
}

const ports = {
  a: openPty(linkA, (data) => forward("b", data)),
  b: openPty(linkB, (data) => forward("a", data)),
};

function forward(to: "a" | "b", data: Buffer): void {
  const carriedData = carry(data);
  if (carriedData !== undefined) ports[to].write(carriedData);
}

function say(): void {
  const overruns = ports.a.overruns() + ports.b.overruns();
  process.stdout.write(`${JSON.stringify({ mode, carried, dropped, overruns })}\n`);
}

setInterval(() => {
  if (mode !== "babble") return;
  ports.a.write(randomBytes(babbleBytes));
  ports.b.write(randomBytes(babbleBytes));
}, babbleIntervalMs);

function perform(line: string): void {
  const command = commandSchema.safeParse(parse(line));
  if (!command.success) {
    process.stdout.write(`${JSON.stringify({ error: "not a command" })}\n`);
    return;
  }
  if ("mode" in command.data) mode = command.data.mode;
  else ports[command.data.forget].forget();
  say();
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

createInterface({ input: process.stdin })
  .on("line", perform)
  .on("close", () => {
    ports.a.close();
    ports.b.close();
    process.exit(0);
  });
say();
