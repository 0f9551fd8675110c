/** What the live view shows: everything it draws from, and nothing it would have to ask for. */
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { OperatorEvent, PanelView, Status } from "../../firmware-ts/schema/status.ts";
import type { ClientState } from "../campaign/clients.ts";
import type { MemoryReading } from "../world/memory.ts";

export interface LiveModel {
  readonly elapsedMs: number;
  readonly selected: ControllerId;
  readonly controllers: { readonly [id in ControllerId]: ControllerModel };
  readonly clients: readonly ClientModel[];
  readonly servers: readonly ServerModel[];
  /** Faults in force, in words: "power a". */
  readonly faults: readonly string[];
  /** Newest last. */
  readonly events: readonly OperatorEvent[];
  /** What the last key did or could not do. */
  readonly note: string;
}

export interface ControllerModel {
  /** Undefined while it does not answer. */
  readonly status: Status | undefined;
  readonly powered: boolean;
  readonly memory: MemoryReading | undefined;
  readonly panel: PanelView | undefined;
}

export interface ClientModel {
  readonly name: string;
  readonly virtualServer: string;
  readonly state: ClientState | undefined;
}

export interface ServerModel {
  readonly name: string;
  readonly home: ControllerId;
  readonly address: string;
  /** Who answers at the address now, as a client sees it. */
  readonly answeredBy: ControllerId | undefined;
  readonly silentMs: number | undefined;
}
