/**
 * The result of decoding bytes that came from outside: a value, or the problem in words.
 * Malformed input is an operating condition, never an exception.
 */
export type Decoded<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly problem: string };

export const decoded = <T>(value: T): Decoded<T> => ({ ok: true, value });
export const malformed = (problem: string): Decoded<never> => ({ ok: false, problem });
