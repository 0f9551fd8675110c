/**
 * When two worlds (mirror-world.ts) are the same for all that may come: but for the names of generations, which are compared and never
 * ordered, and for which controller is which.
 */
import { createHash } from "node:crypto";
import type { ReplicaMetadata } from "../../firmware-ts/schema/mirror.ts";
import type { Node, World } from "./mirror-world.ts";

const nodeTexts = new WeakMap<Node, string>();
const metadataTexts = new WeakMap<ReplicaMetadata, string>();

/** What two replicas of the one volume that there is can differ in. */
function metadataText(metadata: ReplicaMetadata | undefined): string {
  if (!metadata) return "-";
  const known = metadataTexts.get(metadata);
  if (known !== undefined) return known;
  const { current, base, history, replacedBy, continued } = metadata;
  const flags = [metadata.isComplete, metadata.isOutdated, metadata.isPrimary, metadata.isSole];
  const text = `${current}<${base}<${history}(${flags.map(Number).join("")}${replacedBy}${continued?.proof.kind})`;
  metadataTexts.set(metadata, text);
  return text;
}

function nodeText(node: Node): string {
  const known = nodeTexts.get(node);
  if (known !== undefined) return known;
  // Numbers of tasks are compared and never ordered, and this world's answers always have the last one.
  const { state, disk, legTask: _1, copyTask: _2, isFetching, ...rest } = node;
  const {
    me: _,
    disk: believed,
    contact,
    saving,
    refusal: __,
    legFailure,
    asking,
    tasks: _3,
    legTask: _4,
    drainTask: _5,
    sync,
    ...facts
  } = state;
  const text = [
    metadataText(disk),
    metadataText(believed),
    saving && `${saving.purpose}${metadataText(saving.metadata)}`,
    contact && `${contact.id}${contact.hasLeft}${contact.isDeparting}`,
    contact?.told && metadataText(contact.told.metadata),
    contact?.heard && metadataText(contact.heard.metadata),
    legFailure !== undefined,
    asking && `${asking.ask}${asking.generation}${asking.next}${asking.epoch}`,
    JSON.stringify({ ...sync, task: undefined }),
    JSON.stringify({ ...isFetching, task: undefined }),
    JSON.stringify(facts),
    JSON.stringify({ ...rest, persisting: rest.persisting?.merge }),
  ].join("|");
  nodeTexts.set(node, text);
  return text;
}

/** A short text that is the same for worlds with the same future. */
export function keyOf(world: World): string {
  const { nodes, words, witness, writes, acked, givenUp, contact, isUnsound, left } = world;
  const common = JSON.stringify([writes, acked, givenUp, contact, isUnsound, left]);
  const a = `${nodeText(nodes.a)}#${JSON.stringify(words.a)}`;
  const b = `${nodeText(nodes.b)}#${JSON.stringify(words.b)}`;
  const grants = (one: string) =>
    Object.entries(witness)
      .map(([generation, who]) => `${generation}${who === one}`)
      .join();
  const [straight, crossed] = [`${a}#${b}#${grants("a")}`, `${b}#${a}#${grants("b")}`].map(renamed);
  const text = (straight ?? "") < (crossed ?? "") ? straight : crossed;
  return createHash("sha1").update(`${text}${common}`).digest("base64");
}

/** Generations by the order in which they come up. */
function renamed(text: string): string {
  const names = new Map<string, string>();
  return text.replaceAll(/0{8}[0-9a-f]{8}/g, (id) => {
    const name = names.get(id) ?? `g${names.size}`;
    names.set(id, name);
    return name;
  });
}
