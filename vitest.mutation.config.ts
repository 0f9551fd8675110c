import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** From the quick tests to the slow ones: the first that fails has killed the mutant, and the rest is not run. */
const slowLast = ["test/scenarios/scenarios.test.ts", "test/unit/core-race.test.ts"];

function rank({ moduleId }: TestSpecification): number {
  return slowLast.findIndex((name) => moduleId.endsWith(name));
}

class QuickFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    return files.toSorted(
      (one, other) => rank(one) - rank(other) || one.moduleId.localeCompare(other.moduleId),
    );
  }
}

/**
 * The tests that judge mutants (docs/testing.md): those of `core` and `wire` that neither draw long histories nor wait for sockets,
 * timers or processes. One worker runs them all: the pure modules under test keep nothing between two tests.
 */
export default defineConfig({
  test: {
    include: [
      "test/unit/core-*.test.ts",
      "test/unit/witness-{register,client}.test.ts",
      "test/unit/{panel,config,heartbeat,cobs,clients-list}.test.ts",
      "test/unit/{shelf-disk,shelf-reservations,iscsi-*,nbd-codec,scsi-*,wire-*}.test.ts",
      "test/property/{cobs,heartbeat,ip-address,clients-list,iscsi-codec,scsi-codec}.test.ts",
      "test/property/{nbd-parser,panel,shelf-medium}.test.ts",
      "test/scenarios/scenarios.test.ts",
    ],
    setupFiles: ["test/support/fixed-seed.ts"],
    isolate: false,
    sequence: { sequencer: QuickFirst },
    testTimeout: 30_000,
  },
});
