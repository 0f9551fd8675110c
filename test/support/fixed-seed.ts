/** Property tests draw the same cases in every run: a mutant is judged once and for all, not by chance (docs/testing.md). */
import fc from "fast-check";

fc.configureGlobal({ seed: 4711 });
