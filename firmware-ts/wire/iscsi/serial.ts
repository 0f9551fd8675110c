/** Serial numbers of 32 bits (RFC 1982, as RFC 7143 4.2.2.1 uses them for CmdSN, StatSN and their kin). */

/** The number `steps` after `value`, around the end. */
export const serialAdd = (value: number, steps: number): number => (value + steps) >>> 0;

/** How far `to` lies after `from`: negative when it lies before. */
export const serialDistance = (from: number, to: number): number => (to - from) | 0;
