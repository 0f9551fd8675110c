/** A virtual server that is not served, and whose making failed, while another one has what it is to get: each may be waiting for the other. */
import { expect, test } from "vitest";
import { partsTick } from "../../firmware-ts/core/parts.ts";
import type { VirtualServerState } from "../../firmware-ts/core/vserver-types.ts";
import { Pair } from "../../hal/sim/pair.ts";

const address = "10.0.0.150/24";

/** Of controller a, which has alpha and beta. Alpha is to get an address that is still on beta's interface. */
function waiting(alphaMade: { readonly isWhole: boolean }) {
  const pair = new Pair();
  for (const id of ["a", "b"] as const) pair.start(id);
  pair.run(2000);
  const state = pair.controllers.a?.state;
  const [alpha, beta] = state?.servers ?? [];
  if (!state || !alpha || !beta) throw new Error("two virtual servers expected");
  const server = { ...alpha.config, addresses: [...alpha.config.addresses, address] };
  const off = { phase: { kind: "off" }, claims: {} } as const;
  const servers: VirtualServerState[] = [
    {
      ...alpha,
      ...off,
      definition: { ...alpha.definition, server },
      made: { config: alpha.config, ...alphaMade },
    },
    { ...beta, ...off, leftover: [address] },
  ];
  const due = { at: "due", againAtMs: 0, failures: 1, isResumed: false } as const;
  const [, effects] = partsTick({ ...state, mode: "paired", servers, parts: { 0: due } }, 5000) ?? [
    undefined,
    [],
  ];
  return effects.flatMap((each) =>
    each.kind === "forget" ? [`forget ${each.name}`] : each.kind === "define" ? ["define"] : [],
  );
}

test("what is not whole gives up what it may have: a disk of that may be what the other waits for", () => {
  expect(waiting({ isWhole: false })).toEqual(["forget alpha"]);
});

test("what is whole waits as it is", () => {
  expect(waiting({ isWhole: true })).toEqual([]);
});
