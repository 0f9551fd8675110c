/** Which blocks a file has: nodes of its extent tree (Documentation/filesystems/ext4/ifork.rst), little endian. */

const magic = 0xf30a;
const countAt = 2;
const depthAt = 6;
/** The header, and each entry after it. */
const entryBytes = 12;
/** A longer extent is not initialised. */
const extentBlocksMax = 32_768;

/** The root has room for four entries. */
export const rootBytes = 5 * entryBytes;

/** Blocks of the file system, one after another, that hold a part of a file. */
export interface Extent {
  readonly atBlock: number;
  readonly blocks: number;
}

/** A node one level below. */
export interface Leaf {
  /** The first block of the file that it tells of. */
  readonly first: number;
  readonly atBlock: number;
}

/** In the order of the file, from its block `first` on. Undefined for a node that has others below it, for a gap, and for what is no node. */
export function extentsOf(node: Buffer, first = 0): readonly Extent[] | undefined {
  const extents: Extent[] = [];
  let next = first;
  for (const entry of entriesOf(node, 0) ?? []) {
    const blocks = entry.readUInt16LE(4);
    if (entry.readUInt32LE(0) !== next || blocks === 0 || blocks > extentBlocksMax)
      return undefined;
    extents.push({ atBlock: entry.readUInt16LE(6) * 2 ** 32 + entry.readUInt32LE(8), blocks });
    next += blocks;
  }
  return extents.length > 0 ? extents : undefined;
}

/** The nodes below a node, if they have none below themselves. */
export function leavesOf(node: Buffer): readonly Leaf[] | undefined {
  return entriesOf(node, 1)?.map((entry) => ({
    first: entry.readUInt32LE(0),
    atBlock: entry.readUInt16LE(8) * 2 ** 32 + entry.readUInt32LE(4),
  }));
}

function entriesOf(node: Buffer, depth: number): readonly Buffer[] | undefined {
  if (node.length < 2 * entryBytes || node.readUInt16LE(0) !== magic) return undefined;
  if (node.readUInt16LE(depthAt) !== depth) return undefined;
  const count = node.readUInt16LE(countAt);
  if ((count + 1) * entryBytes > node.length) return undefined;
  return Array.from({ length: count }, (_, i) =>
    node.subarray((i + 1) * entryBytes, (i + 2) * entryBytes),
  );
}
