/**
 * The address gate: the kernel answers for a floating address (ARP, ND and every packet, in and out) only while
 * the address stands in a set whose elements expire. Whatever happens to the processes, silence comes by itself, and stays: no
 * call removes the tables, because a firmware that is gone must leave closed gates behind, not none.
 * All calls are synchronous and take about a millisecond: the caller's clock must not move between deciding
 * on a lease and the kernel's start of counting it.
 */
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";

export interface Gate {
  /**
   * Installs the tables with every floating address closed, on the NIC and on others that carry virtual servers' interfaces (its VLANs). Anything
   * left by an earlier run is removed first.
   */
  setUp(nic: string, floating: readonly string[], vlans?: readonly string[]): Outcome;
  /**
   * The complete list of floating addresses from now on, in one transaction. One that is new is closed; one that is no longer there is closed before the gate
   * forgets it, and must not be on any interface by then: what the gate does not know passes. All others keep their lease. After a fault
   * (`badInput`, `gateFailed`) what was to change can be neither opened nor renewed until a call succeeds; the rest goes on. Idempotent.
   */
  know(floating: readonly string[]): Outcome;
  /**
   * Adds an address for `leaseMs`. Opening an open gate is a fault (`gateFailed`): use `renew`. A lease counts
   * from `decidedAtMs` (performance.now(), default: the call), also when the process is stopped on its way to the
   * kernel; one that is over by then closes the gate (`gateExpired`).
   */
  open(addresses: readonly string[], leaseMs: number, decidedAtMs?: number): Outcome;
  /**
   * Replaces each element by one that lasts `leaseMs` from now, in one transaction. The kernel refuses it (fault
   * `gateExpired`) when an element has expired, so a controller that slept cannot reopen what closed meanwhile.
   */
  renew(addresses: readonly string[], leaseMs: number, decidedAtMs?: number): Outcome;
  /** Closes the addresses now. Closing a closed gate is a success; a gate that is not there at all is a fault. */
  close(addresses: readonly string[]): Outcome;
  /** Closes every address, and installs what somebody may have removed: after a success nothing is open, whatever was before. */
  seal(): Outcome;
  /** Addresses open at this instant, with what is left of their lease in ms. For verification and status. */
  read(): Outcome<ReadonlyMap<string, number>>;
}
