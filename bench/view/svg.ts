/** A drawn screen as a picture (SVG 1.1), for documents. Pure. */
import { type Cell, cellsOf } from "./text.ts";

const columnPx = 8.4;
const rowPx = 18;
const marginPx = 12;
const background = "#0f1419";
const foreground = "#d5d8da";

/** Colours for the SGR codes that the view and the panel use. */
const foregrounds: { readonly [code: string]: string } = {
  30: "#0f1419",
  31: "#f07178",
  32: "#8ccf6f",
  33: "#e6b450",
  36: "#73d0ff",
  90: "#6b7680",
};
const backgrounds: { readonly [code: string]: string } = { 42: "#a3be8c" };

interface Look {
  readonly fill: string;
  readonly back: string | undefined;
  readonly bold: boolean;
}

function lookOf(codes: string): Look {
  const given = codes.split(";");
  const fill = given.map((code) => foregrounds[code]).find(Boolean) ?? foreground;
  const back = given.map((code) => backgrounds[code]).find(Boolean);
  const bold = given.includes("1");
  if (given.includes("7")) return { fill: background, back: fill, bold };
  return { fill, back, bold };
}

interface Run {
  readonly column: number;
  text: string;
  readonly codes: string;
}

/** Neighbours of one look become one element. */
function runsOf(cells: readonly Cell[]): Run[] {
  const runs: Run[] = [];
  cells.forEach(({ character, codes }, column) => {
    const last = runs.at(-1);
    if (last && last.codes === codes) last.text += character;
    else runs.push({ column, text: character, codes });
  });
  return runs;
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** `title` is for those who do not see the picture. */
export function svgOf(lines: readonly string[], title: string): string {
  const rows = lines.map(cellsOf);
  const widest = Math.max(1, ...rows.map((row) => row.length));
  const width = Math.ceil(widest * columnPx + 2 * marginPx);
  const height = Math.ceil(rows.length * rowPx + 2 * marginPx);
  const px = (value: number) => String(Math.round(value * 10) / 10);
  const parts = rows.flatMap((cells, row) =>
    runsOf(cells).flatMap((run) => {
      const look = lookOf(run.codes);
      const columns = [...run.text].length;
      const x = marginPx + run.column * columnPx;
      const y = marginPx + row * rowPx;
      const back = look.back
        ? [
            `<rect x="${px(x)}" y="${px(y)}" width="${px(columns * columnPx)}" height="${rowPx}" fill="${look.back}"/>`,
          ]
        : [];
      if (run.text.trim() === "") return back;
      const weight = look.bold ? ' font-weight="bold"' : "";
      // textLength keeps columns where they are, whatever the reader's fixed-width font measures.
      return [
        ...back,
        `<text x="${px(x)}" y="${px(y + rowPx * 0.75)}" fill="${look.fill}"${weight} textLength="${px(columns * columnPx)}">${escapeXml(run.text)}</text>`,
      ];
    }),
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img">`,
    `<title>${escapeXml(title)}</title>`,
    `<rect width="100%" height="100%" rx="8" fill="${background}"/>`,
    '<g font-family="ui-monospace, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="14" xml:space="preserve">',
    ...parts,
    "</g>",
    "</svg>",
    "",
  ].join("\n");
}
