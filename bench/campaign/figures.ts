/** Figures of a series. Pure. */
export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** Undefined for an empty series. Rounded to a tenth, which is finer than a probe of one millisecond can see, or as asked. */
export function spread(
  values: readonly number[],
  rounded: (value: number) => number = tenth,
): Spread | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  const [min] = sorted;
  const max = sorted.at(-1);
  const low = sorted[Math.floor((sorted.length - 1) / 2)];
  const high = sorted[Math.ceil((sorted.length - 1) / 2)];
  if (min === undefined || max === undefined || low === undefined || high === undefined)
    return undefined;
  return { min: rounded(min), median: rounded((low + high) / 2), max: rounded(max) };
}

export function tenth(value: number): number {
  return Math.round(value * 10) / 10;
}

export function thousandth(value: number): number {
  return Math.round(value * 1000) / 1000;
}
