/** Kernel settings of the data NIC without which floating addresses leak, linger or vanish. */
import { writeFileSync } from "node:fs";
import { done, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";

/** Paths below /proc/sys/net; NIC stands for the interface. See ip-sysctl in the kernel's documentation. */
const settings = [
  // Another NIC must not answer ARP for a floating address: only the data NIC is gated.
  ["ipv4/conf/all/arp_ignore", "1"],
  ["ipv4/conf/NIC/arp_ignore", "1"],
  // Our ARP questions must not carry a floating address that may be closed in a moment.
  ["ipv4/conf/all/arp_announce", "2"],
  ["ipv4/conf/NIC/arp_announce", "2"],
  // Removing one address of a subnet must not take the others of that subnet along.
  ["ipv4/conf/all/promote_secondaries", "1"],
  ["ipv4/conf/NIC/promote_secondaries", "1"],
  // Strict reverse path filtering drops clients that come by another route than the answer takes.
  ["ipv4/conf/NIC/rp_filter", "2"],
  // The ways out are those of the configuration, not what some router on the wire says (both count: ip-sysctl).
  ["ipv4/conf/all/accept_redirects", "0"],
  ["ipv4/conf/NIC/accept_redirects", "0"],
  // A file server binds its address before the address is here.
  ["ipv4/ip_nonlocal_bind", "1"],
] as const;
const settings6 = [
  ["ipv6/ip_nonlocal_bind", "1"],
  // The fence has shown that nobody else has the address; detection would refuse it for a second.
  ["ipv6/conf/NIC/accept_dad", "0"],
  ["ipv6/conf/NIC/accept_redirects", "0"],
  // A cable that is pulled must not take the addresses along.
  ["ipv6/conf/NIC/keep_addr_on_down", "1"],
] as const;

/** Prepares the NIC in the caller's network namespace; a kernel without IPv6 is prepared for IPv4. Fault `addressFailed`. */
export function prepareNic(nic: string): Outcome {
  if (!/^[^/\s]{1,15}$/.test(nic))
    return failed("badInput", "prepare NIC", `"${nic}" is no NIC name`);
  for (const [name, value] of settings) {
    const written = write(name.replace("NIC", nic), value);
    if (!written.ok) return written;
  }
  for (const [name, value] of settings6) {
    const written = write(name.replace("NIC", nic), value);
    if (!written.ok && written.fault.cause?.message.includes("ENOENT") !== true) return written;
  }
  return done;
}

function write(name: string, value: string): Outcome {
  const path = `/proc/sys/net/${name}`;
  try {
    writeFileSync(path, value);
    return done;
  } catch (error) {
    return failed("addressFailed", "prepare NIC", `cannot write ${value} to ${path}`, error);
  }
}
