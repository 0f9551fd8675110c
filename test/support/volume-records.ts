/** Records of the common volume, for tests of whatever reads or writes them. */
import fc from "fast-check";
import {
  defaultLimits,
  type LimitsConfig,
  type VirtualServerConfig,
} from "../../firmware-ts/schema/config.ts";
import type { VolumeRecord } from "../../firmware-ts/schema/definition.ts";

export const alpha: VirtualServerConfig = {
  name: "alpha",
  home: "a",
  addresses: ["10.0.0.100/24"],
  routes: [{ to: "default", via: "10.0.0.1" }],
  rules: [],
  volumes: [{ id: 1, disk: "d1", export: "/alpha" }],
  limits: defaultLimits,
};

/** A record of number 3 in the words of a test. */
export function recordOf(
  given: Partial<Omit<VolumeRecord, "definition" | "format">> & {
    readonly number?: number;
    readonly sequence?: number;
    readonly wanted?: VolumeRecord["definition"]["wanted"];
    readonly server?: Partial<VirtualServerConfig>;
  } = {},
): VolumeRecord {
  const { number = 3, sequence = 1, wanted = "started", server = {}, ...rest } = given;
  return {
    format: 1,
    generation: 1,
    owner: "a",
    epoch: 1,
    state: { mounts: [], routes: [], devices: [] },
    ...rest,
    definition: { number, sequence, wanted, server: { ...alpha, ...server } },
  };
}

const uint32 = fc.integer({ min: 0, max: 0xffff_ffff });
const octet = fc.integer({ min: 0, max: 255 });
const ipv4 = fc.tuple(octet, octet, octet, octet).map((octets) => octets.join("."));
const prefix = fc
  .tuple(ipv4, fc.integer({ min: 1, max: 32 }))
  .map(([address, length]) => `${address}/${length}`);
const words = (characters: string, min: number, max: number) =>
  fc
    .array(fc.constantFrom(...characters), { minLength: min, maxLength: max })
    .map((list) => list.join(""));
const serial = words("ABab09._-", 1, 32);
const table = fc.option(fc.integer({ min: 1, max: 252 }), { nil: undefined });
/** Any text that the schema lets through, in whatever script. */
const path = fc.string({ maxLength: 63, unit: "binary" }).map((text) => `/${text}`.slice(0, 64));
const share = words("ABab09._-", 0, 30).map((rest) => `A${rest}`);
const withoutUndefined = <T extends object>(value: T): T =>
  Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== undefined)) as T;

const optional = (min: number, max: number) =>
  fc.option(fc.integer({ min, max }), { nil: undefined });
const limits: fc.Arbitrary<LimitsConfig> = fc
  .record({
    cpuWeight: fc.integer({ min: 1, max: 10_000 }),
    cpuPercent: optional(5, 25_600),
    memoryMb: optional(64, 1_048_576),
    processes: fc.integer({ min: 256, max: 32_768 }),
    bandwidthMbit: optional(1, 100_000),
  })
  .map(withoutUndefined);

const ownerId = fc.integer({ min: 1, max: 65533 });
const smb = fc.record({
  workgroup: words("ABZ09-", 0, 14).map((rest) => `W${rest}`),
  guest: fc.boolean(),
  users: fc.array(
    fc
      .record({
        name: words("abz09_.-", 0, 30).map((rest) => `a${rest}`),
        uid: ownerId,
        gid: fc.option(ownerId, { nil: undefined }),
      })
      .map(withoutUndefined),
    { maxLength: 64 },
  ),
  writeThrough: fc.boolean(),
});

const server: fc.Arbitrary<VirtualServerConfig> = fc
  .record({
    name: words("abz09-", 0, 14).map((rest) => `a${rest}`),
    home: fc.constantFrom("a" as const, "b" as const),
    addresses: fc.array(prefix, { minLength: 1, maxLength: 8 }),
    routes: fc.array(
      fc
        .record({ to: prefix, via: fc.option(ipv4, { nil: undefined }), table })
        .map(withoutUndefined),
      { maxLength: 16 },
    ),
    rules: fc.array(fc.record({ from: prefix, table: fc.integer({ min: 1, max: 252 }) }), {
      maxLength: 16,
    }),
    volumes: fc
      .array(
        fc.record({ disk: serial, export: path, share: fc.option(share, { nil: undefined }) }),
        {
          minLength: 1,
          maxLength: 8,
        },
      )
      .map((volumes) =>
        volumes.map((each, index) => ({ id: index + 1, ...withoutUndefined(each) })),
      ),
    limits,
    smb: fc.option(smb, { nil: undefined }),
  })
  .map(withoutUndefined);

const lines = (max: number) => fc.array(fc.string({ maxLength: 200 }), { maxLength: max });

/** Any record that the schema allows; its state may be too large for a slot. */
export const anyRecord: fc.Arbitrary<VolumeRecord> = fc.record({
  format: fc.constant(1 as const),
  generation: uint32,
  owner: fc.constantFrom("a" as const, "b" as const),
  epoch: uint32,
  definition: fc.record({
    number: fc.integer({ min: 0, max: 63 }),
    sequence: uint32,
    wanted: fc.constantFrom("started" as const, "stopped" as const, "deleted" as const),
    server,
  }),
  state: fc.record({ mounts: lines(32), routes: lines(64), devices: lines(32) }),
});
