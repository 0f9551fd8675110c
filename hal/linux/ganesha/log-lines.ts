/**
 * What ganesha says on its standard error, one line at a time: what it says about NFSv4 grace, and the text for the log.
 * Pure. A format that changes with a later ganesha costs the early view of grace, never service.
 */

/** NFSv4 grace as the log tells it. `recorded` and `reclaimed` count clients. */
export interface GraceView {
  readonly active: boolean;
  readonly recorded: number;
  readonly reclaimed: number;
}

export const noGrace: GraceView = { active: false, recorded: 0, reclaimed: 0 };

/** The view after this line. Lines that say nothing new about grace return the same object. */
export function graceAfter(view: GraceView, line: string): GraceView {
  if (line.includes("NFS Server Now NOT IN GRACE")) return { ...view, active: false };
  if (line.includes("NFS Server Now IN GRACE")) return { ...view, active: true };
  const check = /check grace:reclaim complete\((\d{1,9})\) clid count\((\d{1,9})\)/.exec(line);
  if (check === null) return view;
  const [reclaimed, recorded] = [Number(check[1]), Number(check[2])];
  const isNew = reclaimed !== view.reclaimed || recorded !== view.recorded;
  return isNew ? { ...view, reclaimed, recorded } : view;
}

/** Whether the line counts who has reclaimed. While grace lasts it is said at each look, whether anything has changed or not. */
export function isGraceCount(line: string): boolean {
  return line.includes(":check grace:reclaim complete(");
}

/** The part after date, epoch, host and thread; undefined for lines that only repeat the log configuration. */
export function messageOf(line: string): string | undefined {
  if (line.includes(" :NULL :LOG: ")) return undefined;
  const at = line.indexOf("] ");
  const message = at === -1 ? line : line.slice(at + 2);
  return message.trim() === "" ? undefined : message.trim();
}
