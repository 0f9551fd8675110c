/** The names everything else is keyed by. */
import { z } from "zod";

/** One of the two controllers. A key on a disk carries 1 for `a`, 2 for `b`. */
export const controllerIdSchema = z.enum(["a", "b"]);
export type ControllerId = z.infer<typeof controllerIdSchema>;

export function partnerOf(id: ControllerId): ControllerId {
  return id === "a" ? "b" : "a";
}

/** One heartbeat channel. */
export const linkNameSchema = z.enum(["serial", "network", "disk"]);
export type LinkName = z.infer<typeof linkNameSchema>;
export const linkNames = linkNameSchema.options;

/** A virtual server's name: it becomes part of paths and of interface labels, hence the alphabet and the length. */
export const virtualServerNameSchema = z
  .string()
  .regex(
    /^[a-z][a-z0-9-]{0,14}$/,
    "expected a lower-case name of at most 15 letters, digits or dashes",
  );
