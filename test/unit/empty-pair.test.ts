/** A pair whose virtual servers are all still to come. */
import { expect, test } from "vitest";
import { statusOf } from "../../firmware-ts/core/show.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { statusSchema } from "../../firmware-ts/schema/status.ts";
import { Pair } from "../../hal/sim/pair.ts";

test("a pair without virtual servers pairs, survives a loss and is whole again, and its status says so", () => {
  const pair = new Pair({ servers: 0 });
  const status = (who: ControllerId) => {
    const controller = pair.controllers[who];
    if (!controller) throw new Error(`${who} was never started`);
    return statusSchema.parse(
      statusOf(controller.state, { uptimeMs: 0, links: {}, refusedFrames: {} }),
    );
  };
  const modes = () => [status("a").mode, status("b").mode];
  pair.start("a");
  pair.start("b");
  pair.run(4000);
  expect(modes()).toEqual(["paired", "paired"]);
  expect(status("a")).toMatchObject({ health: "ok", virtualServers: [] });
  pair.kill("a");
  pair.run(3000);
  expect(status("b").mode).toBe("alone");
  pair.start("a");
  pair.run(5000);
  expect(modes()).toEqual(["paired", "paired"]);
  const shown = pair.trace.length;
  const request = { dryRun: false, force: false, reason: "" };
  pair.controllers.a?.command({ kind: "takeover", request });
  pair.run(100);
  expect(pair.trace.slice(shown).join("\n")).toContain("answer: accepted [] plan: nothing");
});
