/** The shelf as its own process, and programs run against it. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { ShelfConfig } from "../../hal/shelf/target/config.ts";
import { limitsMs } from "./limits.ts";

const MAIN = fileURLToPath(new URL("../../hal/shelf/main.ts", import.meta.url));

/** A folder that goes with the test. */
export const newFolder = (): { readonly path: string; remove(): void } => {
  const path = mkdtempSync(join(tmpdir(), "dyad-shelf-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
};

export interface ShelfProcess {
  readonly port: number;
  readonly stderr: () => string;
  /** Sends a signal and waits for the end; the exit code, or the signal's name. */
  end(signal: NodeJS.Signals): Promise<number | string>;
}

const firstLine = (child: ChildProcess): Promise<string> =>
  new Promise((resolve, reject) => {
    let text = "";
    child.stdout?.on("data", (chunk) => {
      text += String(chunk);
      if (text.includes("\n")) resolve(text);
    });
    child.once("exit", (code) => reject(new Error(`the shelf ended with ${code}`)));
  });

/** Starts `hal/shelf/main.ts` and waits until it serves. */
export const startProcess = async (config: ShelfConfig, folder: string): Promise<ShelfProcess> => {
  const file = join(folder, "shelf.json");
  writeFileSync(file, JSON.stringify(config));
  const child = spawn(process.execPath, [MAIN, file], { stdio: ["ignore", "pipe", "pipe"] });
  let stderr = "";
  child.stderr.on("data", (chunk) => {
    stderr += String(chunk);
  });
  const ended = new Promise<number | string>((resolve) =>
    child.once("exit", (code, signal) => resolve(code ?? signal ?? "?")),
  );
  const ready: { port: number } = JSON.parse(await firstLine(child));
  return {
    port: ready.port,
    stderr: () => stderr,
    end: (signal) => {
      child.kill(signal);
      return ended;
    },
  };
};

/** Runs a program to its end; whatever its exit code, its output counts. */
export const run = (
  program: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly timeoutMs?: number } = {},
): Promise<{ readonly code: number; readonly output: string }> =>
  new Promise((resolve) => {
    execFile(
      program,
      args,
      {
        cwd: options.cwd,
        timeout: options.timeoutMs ?? 4 * limitsMs.condition,
        maxBuffer: 64 * 1024 * 1024,
      },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
        resolve({ code, output: `${stdout}${stderr}` });
      },
    );
  });

/** Sends lines to a control socket; as many answers come back. */
export const control = (path: string, lines: readonly string[]): Promise<readonly unknown[]> =>
  new Promise((resolve, reject) => {
    const socket = connect(path);
    let text = "";
    socket.setEncoding("utf8");
    socket.on("error", reject);
    socket.on("data", (chunk) => {
      text += chunk;
      const complete = text.split("\n").slice(0, -1);
      if (complete.length < lines.length) return;
      socket.end();
      resolve(complete.map((line): unknown => JSON.parse(line)));
    });
    socket.write(`${lines.join("\n")}\n`);
  });
