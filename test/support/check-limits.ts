/** No test may set itself a limit below that of its suite: it would judge the speed of the machine (docs/testing.md). */
import { beforeEach } from "vitest";
import { limitsMs } from "./limits.ts";

beforeEach(({ task }) => {
  const { name, projectName = "" } = task.file;
  const leastMs = projectName === "system" ? limitsMs.system : limitsMs.fast;
  if (task.timeout >= leastMs) return;
  throw new Error(
    `${name}: "${task.name}" may take ${task.timeout} ms; a slow machine needs ${leastMs}`,
  );
});
