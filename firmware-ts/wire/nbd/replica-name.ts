/**
 * The name under which a controller asks its partner for the replica of a volume: which volume, in which generation, and in which
 * session. So each connection says before its first request of what it is a part, and one that belongs to the past can be refused.
 */

export interface ReplicaName {
  /** The volume's id, as in its metadata. */
  readonly volume: string;
  /** The generation that the asking side has. */
  readonly generation: string;
  /** One life of the client's connections, never used again: what an older one still has on its way must not take effect any more. */
  readonly session: string;
}

const prefix = "replica";
/** Ids are digits and letters of their owners' choice; the length bounds what is kept and logged of a name. */
const part = /^[0-9A-Za-z._-]{1,64}$/;

/** Whether a text can be one of the three parts. */
export const isReplicaNamePart = (text: string): boolean => part.test(text);

/** `replica/<volume>/<generation>/<session>`. Parts that are none (`isReplicaNamePart`) are a broken invariant. */
export function encodeReplicaName({ volume, generation, session }: ReplicaName): string {
  const parts = [volume, generation, session];
  if (!parts.every(isReplicaNamePart))
    throw new RangeError(`replica name: ${JSON.stringify(parts)}`);
  return [prefix, ...parts].join("/");
}

/** Undefined when it is no name of a replica. */
export function decodeReplicaName(name: string): ReplicaName | undefined {
  const [first, volume = "", generation = "", session = "", ...more] = name.split("/", 5);
  if (first !== prefix || more.length > 0) return undefined;
  if (![volume, generation, session].every(isReplicaNamePart)) return undefined;
  return { volume, generation, session };
}
