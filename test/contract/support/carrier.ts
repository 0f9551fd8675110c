/** A NIC of a test's namespace as what a place is made on. */
import { good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import type { Carrier } from "../../../hal/linux/carriers.ts";
import { interfaceIndex } from "../../../hal/linux/syscalls.ts";
import type { Namespace } from "./namespaces.ts";

export function carrierIn(namespace: Namespace, name: string): Outcome<Carrier> {
  return good({ name, index: namespace.inside(() => interfaceIndex(name)) });
}
