import { defineConfig } from "vitest/config";
import { limitsMs } from "./test/support/limits.ts";

/** What both suites share: the same draws on every machine, and limits that end what hangs and judge nothing (docs/testing.md). */
const shared = {
  setupFiles: ["test/support/fixed-seed.ts", "test/support/check-limits.ts"],
  expect: { poll: { timeout: limitsMs.condition, interval: 5 } },
};

/** Suites by folder: `fast` needs nothing but Node; `system` needs root and Debian packages. */
export default defineConfig({
  test: {
    reporters: ["default", "./test/support/second-attempts.ts"],
    // A worker of a machine that is busy may take its time to end, too.
    teardownTimeout: limitsMs.condition,
    projects: [
      {
        test: {
          ...shared,
          name: "fast",
          include: ["test/{unit,property,scenarios}/**/*.test.ts"],
          testTimeout: limitsMs.fast,
          hookTimeout: limitsMs.fast,
        },
      },
      {
        test: {
          ...shared,
          name: "system",
          include: ["test/{contract,bench,e2e}/**/*.test.ts"],
          testTimeout: limitsMs.system,
          hookTimeout: limitsMs.system,
          fileParallelism: false,
          // These tests share processors, disk and kernel with whatever else the machine does: a burst of that must not decide. A test
          // that needs its second attempt is named at the end of the run, and is to be mended (docs/testing.md).
          retry: 1,
        },
      },
    ],
  },
});
