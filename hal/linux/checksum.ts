/** The Internet checksum (RFC 1071), over several parts as if they were one. */
export function internetChecksum(...parts: readonly Uint8Array[]): number {
  let total = 0;
  for (const part of parts) {
    // Every part but the last has an even length: headers do.
    for (let at = 0; at < part.length; at += 2) {
      total += ((part[at] ?? 0) << 8) | (part[at + 1] ?? 0);
    }
  }
  while (total > 0xffff) total = (total >>> 16) + (total & 0xffff);
  return ~total & 0xffff;
}
