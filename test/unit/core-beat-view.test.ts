/** What the main loop is told of its partner: every field of a view counts. */
import { expect, test } from "vitest";
import type { PartnerView } from "../../firmware-ts/core/beat-types.ts";
import { sameView } from "../../firmware-ts/core/beat-view.ts";

const view: PartnerView = {
  contact: 1,
  session: 2,
  answersTurn: 3,
  mode: "paired",
  epoch: 4,
  configuration: 5,
  owned: "1",
  serving: "1",
  granting: true,
  dataLinkDown: false,
};

const others: { readonly [key in keyof PartnerView]: PartnerView[key] } = {
  contact: 9,
  session: 9,
  answersTurn: 9,
  mode: "alone",
  epoch: 9,
  configuration: 9,
  owned: "01",
  serving: "01",
  granting: false,
  dataLinkDown: true,
};

test("two views with the same fields are the same", () =>
  expect(sameView(view, { ...view })).toBe(true));

test.each(Object.keys(view) as (keyof PartnerView)[])("a view differs by its %s", (key) => {
  expect(sameView(view, { ...view, [key]: others[key] })).toBe(false);
});
