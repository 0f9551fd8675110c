/** Namespaces of tests do not outlive the worker that made them, however it ends. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { expect, test } from "vitest";
import { until } from "../support/until.ts";
import { rootMissing } from "./support/namespaces.ts";

test.skipIf(rootMissing).each(["SIGKILL", "SIGTERM"] as const)(
  "a process that is ended by %s leaves no namespace",
  async (signal) => {
    const support = new URL("./support/namespaces.ts", import.meta.url).href;
    const script = `import { Namespace } from "${support}";
      console.log(new Namespace("ended").name);
      setInterval(() => undefined, 1000);`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let name = "";
    child.stdout.on("data", (text) => {
      name += text;
    });
    await until("it has made one", () => name.endsWith("\n"));
    const held = `/run/netns/${name.trim()}`;
    expect(existsSync(held)).toBe(true);
    child.kill(signal);
    await until("it is gone", () => !existsSync(held));
  },
);
