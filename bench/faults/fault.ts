/** What a fault of the bench is. Each one lives in a file of its own beside this one. */
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { World } from "../world/world.ts";

export interface Fault {
  readonly name: string;
  /** One sentence for people: what happens to whom. */
  readonly description: string;
  /**
   * Does it to the `victim`, the controller that owns the first virtual server. Settles as soon as it is done. The returned
   * function, if any, ends what the fault goes on doing; it is called before the repair.
   */
  inject(world: World, victim: ControllerId): Promise<void>;
  /** Undoes the cause; the pair then mends itself. Repairing what is not broken does no harm. */
  repair(world: World, victim: ControllerId): Promise<void>;
}
