/** Mutation testing of `core` and `wire` (docs/testing.md). `scripts/mutation.ts` runs it, one source file after the other. */
export default {
  plugins: ["@stryker-mutator/vitest-runner"],
  testRunner: "vitest",
  vitest: { configFile: "vitest.mutation.config.ts", related: true },
  coverageAnalysis: "perTest",
  // A file without a test is the worst score, not an error.
  allowEmpty: true,
  concurrency: 1,
  mutator: {
    // A string here is a tag, and the compiler refuses any other one, or a text for people, which no test should pin.
    excludedMutations: ["StringLiteral"],
  },
  ignorePatterns: ["/work", "/coverage", "/models"],
  tempDirName: "work/mutation/sandbox",
  incremental: true,
  // The incremental file is the report: scripts/mutation.ts reads it.
  reporters: [],
  cleanTempDir: "always",
};
