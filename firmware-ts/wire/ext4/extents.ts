/** Which blocks a file has, if its extent tree is no more than a root (Documentation/filesystems/ext4/ifork.rst). */

/** Little endian: a header of 12 bytes, then at most four extents of 12. */
const extentMagic = 0xf30a;
const extentBytes = 12;
const extentsMax = 4;
/** A longer one is not initialised. */
const extentBlocksMax = 32_768;

export const extentRootBytes = (1 + extentsMax) * extentBytes;

/** Blocks of the file system, one after another, that hold a part of a file. */
export interface Extent {
  readonly atBlock: number;
  readonly blocks: number;
}

/** In the order of the file. Undefined for a deeper tree, for a file with gaps, and for what is no tree. */
export function extentsOf(root: Buffer): readonly Extent[] | undefined {
  if (root.length < extentRootBytes) return undefined;
  const count = root.readUInt16LE(2);
  const depth = root.readUInt16LE(6);
  if (root.readUInt16LE(0) !== extentMagic || depth !== 0) return undefined;
  if (count === 0 || count > extentsMax) return undefined;
  const extents: Extent[] = [];
  let next = 0;
  for (let i = 1; i <= count; i += 1) {
    const at = i * extentBytes;
    const blocks = root.readUInt16LE(at + 4);
    if (root.readUInt32LE(at) !== next) return undefined;
    if (blocks === 0 || blocks > extentBlocksMax) return undefined;
    const atBlock = root.readUInt16LE(at + 6) * 2 ** 32 + root.readUInt32LE(at + 8);
    extents.push({ atBlock, blocks });
    next += blocks;
  }
  return extents;
}
