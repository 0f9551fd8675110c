/** What a controller keeps on its own disk: the small record it must not forget, and the journal of what happened. */
import { z } from "zod";

/** Survives a restart. Written, and flushed, before any effect that relies on it. */
export const persistentRecordSchema = z.strictObject({
  version: z.literal(1),
  /** The highest epoch that this controller has acted under or seen. */
  epoch: z.number().int().min(0).max(0xffff_ffff),
});
export type PersistentRecord = z.infer<typeof persistentRecordSchema>;
