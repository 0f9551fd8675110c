/**
 * A process that keeps a gate open as a controller does, until it is frozen: `gate-holder.ts NIC LEASE_MS ADDRESS...`.
 * Says `open`, then the fault code of the renewal that was refused.
 */
import { createGate } from "../../../hal/linux/gate.ts";
import { takeRealTimePriority } from "../../../hal/linux/realtime.ts";

const [nic = "", lease = "", ...addresses] = process.argv.slice(2);
const leaseMs = Number(lease);
const created = createGate();
if (!created.ok) throw new Error(JSON.stringify(created.fault));
const gate = created.value;
for (const step of [
  takeRealTimePriority(10),
  gate.setUp(nic, addresses),
  gate.open(addresses, leaseMs),
]) {
  if (!step.ok) throw new Error(JSON.stringify(step.fault));
}
console.log("open");
const timer = setInterval(() => {
  const renewed = gate.renew(addresses, leaseMs);
  if (renewed.ok) return;
  clearInterval(timer);
  console.log(renewed.fault.code);
}, 10);
