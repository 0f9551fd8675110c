/** Operator events: numbered, dated, kept in a ring, and given to everyone who listens (API, MQTT, log). */
import type { Report } from "../core/effects.ts";
import type { ControllerId } from "../schema/ids.ts";
import type { OperatorEvent } from "../schema/status.ts";

/** Events kept for those who ask later. */
const ringMax = 1000;

export interface EventRing {
  add(report: Report): OperatorEvent;
  after(sequence: number): OperatorEvent[];
  subscribe(listener: (event: OperatorEvent) => void): () => void;
}

export function createEventRing(controller: ControllerId): EventRing {
  let ring: OperatorEvent[] = [];
  let sequence = 0;
  const listeners = new Set<(event: OperatorEvent) => void>();
  return {
    add({ severity, code, message, detail }) {
      sequence += 1;
      const at = new Date().toISOString();
      const event: OperatorEvent = {
        sequence,
        at,
        controller,
        severity,
        code,
        message,
        ...(detail ? { detail: { ...detail } } : {}),
      };
      ring.push(event);
      if (ring.length > ringMax) ring = ring.slice(-ringMax / 2);
      for (const listener of listeners) listener(event);
      return event;
    },
    after: (after) => ring.filter((event) => event.sequence > after),
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
