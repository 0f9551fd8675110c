/** What a command printed for machines: one JSON object per line. */
export const jsonLines = (text: string) =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
