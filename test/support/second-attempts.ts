/** Names at the end of a run every test that passed only at its second attempt, and what the first one failed at (docs/testing.md). */
import type { Reporter, TestModule } from "vitest/node";

export default class SecondAttempts implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const lines = modules.flatMap((module) =>
      [...module.children.allTests()].flatMap((test) => {
        if (test.diagnostic()?.flaky !== true) return [];
        const [error] = test.result().errors ?? [];
        const reason = error?.message.split("\n")[0] ?? "no reason given";
        return [`  ${module.relativeModuleId} > ${test.fullName}\n    first: ${reason}`];
      }),
    );
    if (lines.length === 0) return;
    console.log(`\nPassed only at the second attempt, to be mended:\n${lines.join("\n")}`);
  }
}
