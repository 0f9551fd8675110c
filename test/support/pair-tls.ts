/** How two controllers of a test know each other over NBD: one key, and an id each. */
import { NbdTls } from "../../hal/block/nbd-tls.ts";

export const pairKey = Buffer.alloc(32, 0x5a);

export function keyTls(identity: string, peerIdentity: string, key = pairKey): NbdTls {
  const made = NbdTls.create({ kind: "key", identity, peerIdentity, key });
  if (!made.ok) throw new Error(made.fault.message);
  return made.value;
}

/** Of the one that asks, and of the one whose replica is asked for. */
export const askingTls = keyTls("controller-a", "controller-b");
export const servingTls = keyTls("controller-b", "controller-a");
