/** Identities that are functions of a virtual server's number and a volume's id: none is given twice, and none depends on what else there is. */
import { expect, test } from "vitest";
import { virtualServersMax } from "../../firmware-ts/schema/beat.ts";
import { volumesMax } from "../../firmware-ts/schema/config.ts";
import { exportIdOf, macOf, sessionOf } from "../../hal/bench/numbering.ts";
import { isidOf } from "../../hal/bench/portal.ts";

const numbers = Array.from({ length: virtualServersMax }, (_, i) => i);
const volumes = numbers.flatMap((number) =>
  Array.from({ length: volumesMax }, (_, i) => [number, i + 1] as const),
);
const shelf = { coordinators: ["c1", "c2", "c3"] };
const identities = (id: "a" | "b", pair: number) =>
  numbers.map((number) => {
    const config = { controller: { id }, pair: { id: pair } };
    return Buffer.from(macOf(config as never, number)).toString("hex");
  });

test("no two volumes have one export id, and ganesha takes all of them", () => {
  const ids = volumes.map(([number, volume]) => exportIdOf(number, volume));
  expect(new Set(ids).size).toBe(virtualServersMax * volumesMax);
  expect([Math.min(...ids), Math.max(...ids)]).toEqual([1, 512]);
});

test("no two volumes have one session to the shelf, nor that of a coordinator", () => {
  const isids = volumes.map(([number, volume]) =>
    isidOf(sessionOf({ shelf } as never, number, volume)),
  );
  const coordinators = shelf.coordinators.map((_, i) => isidOf(i));
  expect(new Set([...isids, ...coordinators]).size).toBe(isids.length + coordinators.length);
  for (const isid of isids) expect(isid).toMatch(/^80[0-9a-f]{10}$/);
});

test("no two virtual servers have one hardware address, on either controller of either pair", () => {
  const all = [identities("a", 1), identities("b", 1), identities("a", 515)].flat();
  expect(new Set(all).size).toBe(all.length);
  // Locally administered, and of no group.
  for (const mac of all) expect(Number.parseInt(mac.slice(0, 2), 16) & 3).toBe(2);
  expect(all[7]).toBe("02dd00010108");
});
