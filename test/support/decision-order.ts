/**
 * When two orders of decisions are the same. Two decisions are *dependent* when their order means something, else *independent*: then it is
 * the chance of two answers that were under way at once. Two orders are the same when one becomes the other by swapping neighbours that are
 * independent (Mazurkiewicz's traces); `inOrder` writes all orders that are the same in one way. What is dependent:
 *
 * - everything about one subject, with a server its disks, gate, works and messages: gate before seal before release before go;
 * - what the controller as a whole decides and everything else: an epoch is kept before anything is done under it;
 * - the preemptions of coordinators: that they come in one order is a rule (docs/SAFETY.md).
 *
 * What is independent, and why that is honest:
 *
 * - two virtual servers: neither ever waits for the other;
 * - what is only told (the lights of links, that a partner is heard) and everything: nothing follows from it. A link's light that is back
 *   within `flickerMs` is left out: on a busy machine a beat may come late;
 * - what a coordinator says after a registration was asked for, and everything but itself: a majority is counted, and whoever is last
 *   hurries nobody. That it was a majority is a word of the decision which needs it.
 */
import type { Decision } from "./decisions.ts";

const flickerMs = 200;

function isDependent(one: Decision, other: Decision): boolean {
  if (one.subject === other.subject && one.name === other.name) return true;
  if (one.subject === "light" || other.subject === "light") return false;
  if (one.subject === "coordinator" && other.subject === "coordinator")
    return isPreemption(one) && isPreemption(other);
  const [controller, second] = one.subject === "controller" ? [one, other] : [other, one];
  if (controller.subject !== "controller") return false;
  return second.subject !== "coordinator" || isAwaited(second);
}

const isPreemption = ({ what }: Decision) => what.startsWith("preempt");

/** On a coordinator: what begins a registration, and all that belongs to a race. */
const isAwaited = (decision: Decision) =>
  isPreemption(decision) || decision.what === "register" || decision.what === "readKeys";

const subjects = ["controller", "server", "coordinator", "light"] as const;
const rank = ({ subject, name }: Decision) => `${subjects.indexOf(subject)} ${name}`;

/** The one way to write all orders that are the same as this one: of all that could come next, always the lowest by subject. */
export function inOrder(decisions: readonly Decision[]): string[] {
  const left = withoutRepeats(withoutFlicker(decisions));
  const lines: string[] = [];
  while (left.length > 0) {
    let next = 0;
    for (let i = 1; i < left.length; i += 1) {
      const each = left[i] as Decision;
      const isFree = !left.slice(0, i).some((earlier) => isDependent(earlier, each));
      if (isFree && rank(each) < rank(left[next] as Decision)) next = i;
    }
    const [chosen] = left.splice(next, 1);
    if (chosen) lines.push(wordsOf(chosen));
  }
  return lines;
}

function wordsOf({ subject, name, what }: Decision): string {
  const about =
    subject === "controller" ? subject : subject === "server" ? name : `${subject} ${name}`;
  return `${about}: ${what}`;
}

/** A light that changes and is back soon. */
function withoutFlicker(decisions: readonly Decision[]): Decision[] {
  const kept: Decision[] = [];
  for (const each of decisions) {
    const isLink = each.what.startsWith("report link.");
    const before = isLink ? kept.findLastIndex((earlier) => isSame(earlier, each)) : -1;
    const isBack = before >= 0 && each.atMs - (kept[before] as Decision).atMs < flickerMs;
    if (isBack) kept.splice(before, 1);
    else kept.push(each);
  }
  return kept;
}

const isSame = (one: Decision, other: Decision) =>
  one.subject === other.subject && one.name === other.name;

/** A gate that was refused is asked for again; an end is said until it comes. */
function withoutRepeats(decisions: readonly Decision[]): Decision[] {
  const last = new Map<string, string>();
  return decisions.filter((each) => {
    const about = rank(each);
    const isRepeat =
      last.get(about) === each.what && (each.what === "gateOpen" || each.what.startsWith("exit"));
    last.set(about, each.what);
    return !isRepeat;
  });
}
