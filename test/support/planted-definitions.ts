/** Mistakes about definitions and the common volume; see planted.ts. */
import { holdsServer } from "../../firmware-ts/core/mandate.ts";
import { bareAddresses } from "../../firmware-ts/schema/config.ts";
import { decodeMessage } from "../../firmware-ts/schema/messages.ts";
import { setOf } from "../../firmware-ts/schema/server-set.ts";
import type { Plan } from "../../hal/sim/plan.ts";
import { believing, decisions, doing, type Planted, told } from "./planting.ts";

export const inDefinitions: Readonly<Record<string, Planted>> = {
  usesAtOnce: {
    wrong: "what a change gives to a virtual server is used before the partner knows of the change",
    profile: "changes",
    seeds: 600,
    breaks: ["neverTwoAnswers"],
    spoil: lateWords,
    plant: believing((state) => ({ ...state, unagreed: [] })),
  },
  claimsTooLittle: {
    wrong: "what is in the way of another virtual server is not claimed",
    profile: "changes",
    seeds: 600,
    breaks: ["neverTwoAnswers"],
    plant: doing((effect, after) => {
      if (effect.kind !== "mandate") return [effect];
      const { servers } = after;
      const owned = setOf(servers.length, (i) => {
        const server = servers[i];
        return server !== undefined && holdsServer(after, server);
      });
      return [{ ...effect, mandate: { ...effect.mandate, owned } }];
    }),
  },
  forgetsToStop: {
    wrong: "what is not to be served any more is taken for started",
    profile: "changes",
    seeds: 40,
    breaks: ["neverUnwanted", "noEndlessDark", "neverLostChange"],
    plant: believing((state) => ({
      ...state,
      servers: state.servers.map((server) =>
        server.definition.wanted === "stopped"
          ? { ...server, definition: { ...server.definition, wanted: "started" } }
          : server,
      ),
    })),
  },
  believesEveryWriting: {
    wrong: "a record counts as written whatever the disks say",
    profile: "changes",
    seeds: 100,
    breaks: ["neverLostChange", "sameDefinitions"],
    plant: told((event) =>
      event.kind === "volumeWritten"
        ? { ...event, written: { ...event.written, accepted: event.written.total } }
        : event,
    ),
  },
  readsNothing: {
    wrong: "the common volume is always said to be empty",
    profile: "changes",
    seeds: 40,
    breaks: ["neverLostChange", "sameDefinitions", "noEndlessDark"],
    plant: told((event) =>
      event.kind === "volume" && event.outcome.ok
        ? { ...event, outcome: { ok: true, value: { ...event.outcome.value, records: [] } } }
        : event,
    ),
  },
  neverRaises: {
    wrong: "every record is written with the same generation",
    profile: "changes",
    seeds: 100,
    breaks: ["neverLostChange", "sameDefinitions", "noEndlessDark"],
    plant: doing((effect) =>
      effect.kind === "volumeWrite"
        ? [{ ...effect, record: { ...effect.record, generation: 1 } }]
        : [effect],
    ),
  },
  forgetsEarly: {
    wrong: "the gate forgets addresses that are still on an interface",
    profile: "changes",
    seeds: 100,
    breaks: ["neverUngated"],
    plant: doing((effect, { servers }) => {
      if (effect.kind !== "gate" || effect.command.kind !== "gateKnow") return [effect];
      const wanted = servers
        .filter(({ definition }) => definition.wanted !== "deleted")
        .flatMap(({ definition }) => bareAddresses(definition.server));
      return [{ ...effect, command: { ...effect.command, addresses: wanted } }];
    }),
  },
  learnsNothing: {
    wrong:
      "nobody reads the common volume because of what the partner knows, or says that it has changed",
    profile: "changes",
    seeds: 200,
    breaks: ["sameDefinitions", "noEndlessDark"],
    plant: decisions((step) => (state, event) => {
      const partner = state.partner && { ...state.partner, configuration: state.configuration };
      const isWord = event.kind === "seen" && event.observation.kind === "message";
      const word = isWord && decodeMessage(event.observation.body)?.type === "changed";
      return word ? [state, []] : step({ ...state, partner }, event);
    }),
  },
};

/** What the controllers say to each other comes late, each word by as much as chance will have it. */
function lateWords(plan: Plan): Plan {
  const late = (["network", "serial"] as const).map((link) => ({
    atMs: 0,
    events: 0,
    mishap: { do: "spoil", link, to: undefined, what: "straggleMs", part: 80 } as const,
  }));
  return { ...plan, faults: [...late, ...plan.faults] };
}
