/**
 * Names at the end of a run every test that needed a second attempt, and what the first one failed at (docs/testing.md): of those that then failed again, too, for
 * what the first has left behind may be all that the second says.
 */
import type { Reporter, TestModule } from "vitest/node";

/** The reason and what differed; the rest stands where the test ran. */
const linesMax = 24;

interface Failure {
  readonly message: string;
  readonly diff?: string | undefined;
}

function reasonOf(failure: Failure | undefined): string {
  if (failure === undefined) return "no reason given";
  const lines = [failure.message, failure.diff ?? ""].join("\n").split("\n");
  const told = lines.filter((line) => line.trim() !== "").slice(0, linesMax);
  return told.join("\n           ");
}

export default class SecondAttempts implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const flaky: string[] = [];
    const failed: string[] = [];
    for (const module of modules) {
      for (const test of module.children.allTests()) {
        const errors = test.result().errors ?? [];
        const isFlaky = test.diagnostic()?.flaky === true;
        if (!isFlaky && errors.length < 2) continue;
        const name = `  ${module.relativeModuleId} > ${test.fullName}`;
        (isFlaky ? flaky : failed).push(`${name}\n    first: ${reasonOf(errors[0])}`);
      }
    }
    if (flaky.length > 0)
      console.log(`\nPassed only at the second attempt, to be mended:\n${flaky.join("\n")}`);
    if (failed.length > 0) console.log(`\nFailed at both attempts:\n${failed.join("\n")}`);
  }
}
