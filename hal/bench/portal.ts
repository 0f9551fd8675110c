/** How a controller reaches the shelf: address, and a session identity for each disk. */

/** `host:port`, where host may be an IPv6 address in brackets. The schema has checked the form. */
export function portalOf(portal: string): { readonly host: string; readonly port: number } {
  const colon = portal.lastIndexOf(":");
  const host = portal.slice(0, colon).replace(/^\[|\]$/g, "");
  return { host, port: Number(portal.slice(colon + 1)) };
}

/**
 * ISID of the session to disk number `index`: type "random" (RFC 7143 11.12.5) with a constant, because the same name and
 * ISID make the same I_T nexus after a new login, and a registration survives.
 */
export function isidOf(index: number): string {
  return `80d7ad00${index.toString(16).padStart(4, "0")}`;
}
