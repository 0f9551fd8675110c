import { defineConfig } from "vitest/config";

/** Suites by folder: `fast` needs nothing but Node; `system` needs root and Debian packages. */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "fast",
          include: ["test/{unit,property,scenarios}/**/*.test.ts"],
          testTimeout: 30_000,
        },
      },
      {
        test: {
          name: "system",
          include: ["test/{contract,bench,e2e}/**/*.test.ts"],
          testTimeout: 240_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
