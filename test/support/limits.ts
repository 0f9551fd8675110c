/**
 * How long the tests wait, ms. Each limit is far above what a machine takes that is ten times slower than ours: it ends what hangs, and
 * judges nothing (docs/testing.md).
 */
export const limitsMs = {
  /** A whole test of the suite `fast`, or a hook. */
  fast: 120_000,
  /** A whole test of the suite `system`, or a hook. */
  system: 300_000,
  /** A condition that a test waits for, and a call with a limit that the test is not about. */
  condition: 60_000,
} as const;

/** An iSCSI disk none of whose limits passes unless a test is about it. */
export const patientDisk = {
  commandTimeoutMs: limitsMs.condition,
  ioTimeoutMs: 2 * limitsMs.condition,
  loginTimeoutMs: limitsMs.condition,
  keepaliveMs: limitsMs.condition,
  keepaliveTimeoutMs: limitsMs.condition,
  abortTimeoutMs: limitsMs.condition,
} as const;
