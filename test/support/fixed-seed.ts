/**
 * Property tests draw the same cases in every run, so that a commit has the same verdict on every machine, and a mutant is judged once
 * and for all. `PROPERTY_SEED=random` draws anew, `PROPERTY_SEED=<number>` from that seed (docs/testing.md).
 */
import fc from "fast-check";

const wanted = process.env.PROPERTY_SEED ?? "4711";
if (wanted !== "random") {
  const seed = Number(wanted);
  if (!Number.isInteger(seed))
    throw new Error(`PROPERTY_SEED is "${wanted}", expected a whole number or "random"`);
  fc.configureGlobal({ seed });
}
