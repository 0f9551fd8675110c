/**
 * Mistakes that are planted into a world, one at a time, to see that the simulator notices: in the decisions of the main loop, in the beat
 * machine, in the kernel, in the shelf. Only tests can plant them; nothing of production knows of this file.
 */
import { ids } from "../../hal/sim/pair.ts";
import type { Plan } from "../../hal/sim/plan.ts";
import { inDefinitions } from "./planted-definitions.ts";
import {
  beating,
  beats,
  believing,
  decisions,
  doing,
  type Planted,
  saying,
  told,
  unseen,
} from "./planting.ts";

const inMain: Readonly<Record<string, Planted>> = {
  opensAtOnce: {
    wrong: "the addresses of a lost partner are opened without waiting for its leases",
    profile: "pauses",
    seeds: 40,
    breaks: ["neverTwoAnswers"],
    plant: doing((effect) =>
      effect.kind === "gate" && effect.command.kind === "gateOpen"
        ? [{ ...effect, command: { ...effect.command, notBeforeMs: 0 } }]
        : [effect],
    ),
  },
  ignoresLostDevice: {
    wrong: "a block device that is gone is no news",
    profile: "disks",
    seeds: 40,
    only: (plan) => plan.faults.some(({ mishap }) => mishap.do === "device"),
    breaks: ["noEndlessDark"],
    plant: told((event) => (event.kind === "deviceLost" ? undefined : event)),
  },
  releasesMounted: {
    wrong: "a disk is released together with the order to seal it",
    profile: "quiet",
    seeds: 10,
    breaks: ["releaseOnlyWhenGone"],
    plant: doing((effect, after) => {
      if (effect.kind !== "work" || effect.work.op !== "seal") return [effect];
      const { disk } = effect.work;
      const { key } = after.servers.find(({ claims }) => claims[disk]) ?? {};
      if (key === undefined) return [effect];
      const command = { op: "release", key, type: "exclusiveAccessRegistrantsOnly" } as const;
      const early = { kind: "reserve", token: "early", serial: disk, command } as const;
      return [{ ...early, deadlineMs: 1000 }, effect];
    }),
  },
  forgetsLoss: {
    wrong: "a race is won as if the partner had said goodbye",
    profile: "links",
    seeds: 100,
    breaks: ["neverTwoAnswers"],
    plant: believing((state) =>
      state.loss ? { ...state, loss: { ...state.loss, reason: "goodbye" } } : state,
    ),
  },
  believesItOwns: {
    wrong: "a claim believes that a disk is its own without looking",
    profile: "power",
    seeds: 20,
    breaks: ["noEndlessDark", "neverTwoWriters"],
    plant: told((event, state) => {
      if (event.kind !== "reserved" || !event.token.includes(":claim:")) return event;
      const { answer } = event;
      const name = event.token.split(":")[1];
      const { key } = state.servers.find(({ config }) => config.name === name) ?? {};
      if (key === undefined) return event;
      if (answer.status === "keys") return { ...event, answer: { ...answer, keys: [key] } };
      if (answer.status !== "reservation") return event;
      const holder = { key, type: "exclusiveAccessRegistrantsOnly" } as const;
      return { ...event, answer: { ...answer, holder } };
    }),
  },
  skipsPreempt: {
    wrong: "a claim registers once more where it should preempt the last owner",
    profile: "power",
    seeds: 20,
    breaks: ["noEndlessDark", "neverTwoWriters"],
    plant: doing((effect) => {
      if (effect.kind !== "reserve" || effect.command.op !== "preempt") return [effect];
      if (!effect.token.includes(":claim:")) return [effect];
      return [{ ...effect, command: { op: "register", key: effect.command.key } }];
    }),
  },
  winsWithoutRising: {
    wrong: "the winner of a race does not go above the epochs that it knows",
    profile: "everything",
    seeds: 200,
    breaks: ["epochsOnlyRise", "noEndlessDark"],
    plant: decisions((step) => (state, event) => {
      const low = state.mode === "racing" ? { ...state, epoch: 0, epochSeen: 0 } : state;
      return step(low, event);
    }),
  },
  neverRetries: {
    wrong: "a virtual server that failed once is not tried again",
    profile: "disks",
    seeds: 60,
    breaks: ["noEndlessDark"],
    plant: believing((state) => ({
      ...state,
      servers: state.servers.map((server) =>
        server.phase.kind === "failed"
          ? { ...server, phase: { ...server.phase, retryAtMs: Number.MAX_SAFE_INTEGER } }
          : server,
      ),
    })),
  },
  ignoresLapse: {
    wrong: "a gate that the kernel closed by itself is not opened again",
    profile: "pauses",
    seeds: 100,
    breaks: ["noEndlessDark"],
    plant: unseen("gateLapsed"),
  },
  ignoresDeath: {
    wrong: "nobody notices that a file service has died",
    profile: "everything",
    seeds: 300,
    breaks: ["noEndlessDark"],
    plant: told((event) => (event.kind === "serviceExited" ? undefined : event)),
  },
  ignoresBrokenVolume: {
    wrong: "a file system that takes no writes any more is no news",
    profile: "disks",
    seeds: 100,
    breaks: ["noEndlessDark"],
    spoil: withClients,
    plant: told((event) => (event.kind === "volumeFailed" ? undefined : event)),
  },
  ignoresLostAddress: {
    wrong: "an address that somebody took away is not put back",
    profile: "links",
    seeds: 100,
    breaks: ["noEndlessDark"],
    spoil: withClients,
    plant: told((event) => (event.kind === "addressLost" ? undefined : event)),
  },
  ignoresHang: {
    wrong: "nobody asks a file service again once it has answered",
    profile: "pauses",
    seeds: 100,
    breaks: ["noEndlessDark"],
    spoil: withClients,
    plant: told((event) => (event.kind === "serviceHung" ? undefined : event)),
  },
  unaudited: {
    wrong: "an override is not recorded",
    profile: "links",
    seeds: 100,
    breaks: ["forcedIsAudited"],
    plant: doing((effect) =>
      effect.kind === "report" && effect.report.code === "command.forced" ? [] : [effect],
    ),
  },
};

const inBeat: Readonly<Record<string, Planted>> = {
  neverGrants: {
    wrong: "no beat grants",
    profile: "quiet",
    seeds: 2,
    breaks: ["noEndlessDark"],
    plant: saying(() => ({ granting: false })),
  },
  hidesStall: {
    wrong: "a beat process does not say that its main loop hangs",
    profile: "pauses",
    seeds: 10,
    breaks: ["noEndlessDark"],
    only: ({ loss }) => loss?.how === "hang",
    plant: saying(() => ({ progressAgeMs: 0 })),
  },
  goodbyeFirst: {
    wrong: "goodbye is said when a controller begins to leave, not when it has let go",
    profile: "upgrade",
    seeds: 40,
    breaks: ["neverTwoAnswers"],
    plant: saying((beat) => ({ goodbye: beat.mode === "leaving" })),
  },
  forgetsGrants: {
    wrong: "a loss is told without the last lease that was granted",
    profile: "pauses",
    seeds: 40,
    breaks: ["neverTwoAnswers"],
    plant: beating((effect) =>
      effect.kind === "observe" && effect.observation.kind === "partnerLost"
        ? {
            ...effect,
            observation: { ...effect.observation, lastGrantedMs: undefined, soloBoundMs: 0 },
          }
        : effect,
    ),
  },
  renewsTooLong: {
    wrong: "a gate is renewed for 60 ms longer than the acknowledgement is good for",
    profile: "pauses",
    seeds: 20,
    breaks: ["neverTwoAnswers"],
    plant: beating((effect) =>
      effect.kind === "renew" ? { ...effect, untilMs: effect.untilMs + 60 } : effect,
    ),
  },
  closesNothing: {
    wrong: "an order to close a gate is answered and not carried out",
    profile: "quiet",
    seeds: 20,
    breaks: ["neverTwoAnswers"],
    plant: beating((effect) => (effect.kind === "close" ? { ...effect, addresses: [] } : effect)),
  },
  excusesEverySilence: {
    wrong: "a beat process takes every tick for the end of a stall, and does not count how often",
    profile: "power",
    seeds: 60,
    breaks: ["noEndlessDark"],
    plant: beats(
      (step) => (state, event) =>
        event.kind === "tick"
          ? step({ ...state, tickedAtMs: event.nowMs - 1000, doubtedSinceMs: undefined }, event)
          : step(state, event),
    ),
  },
  gaspsWithOpenGates: {
    wrong: "last words are said before the gates are closed",
    profile: "power",
    seeds: 100,
    breaks: ["neverTwoAnswers"],
    plant: beats(
      (step) => (state, event) =>
        event.kind === "lastWords" ? [{ ...state, ending: "closed" }, []] : step(state, event),
    ),
  },
};

const inWorld: Readonly<Record<string, Planted>> = {
  gatesLinger: {
    wrong: "a kernel lets a gate live 150 ms longer than it was told",
    profile: "pauses",
    seeds: 40,
    breaks: ["neverTwoAnswers"],
    plant: ({ kernels }) => {
      for (const who of ids) {
        const kernel = kernels[who];
        const renew = kernel.renew.bind(kernel);
        kernel.renew = (addresses, untilMs, nowMs) => renew(addresses, untilMs + 150, nowMs);
      }
    },
  },
  sealsFail: {
    wrong: "a seal is reported that has not happened",
    profile: "quiet",
    seeds: 20,
    breaks: ["releaseOnlyWhenGone"],
    plant: ({ kernels }) => {
      for (const who of ids) kernels[who].sealed.add = () => kernels[who].sealed;
    },
  },
  disksLetThrough: {
    wrong: "a disk lets everybody write",
    profile: "pauses",
    seeds: 100,
    breaks: ["neverTwoWriters", "linearizable", "neverLostAcknowledged"],
    plant: ({ shelf }) => {
      shelf.mayWrite = () => true;
    },
  },
  disksLie: {
    wrong: "a disk acknowledges writes of one controller that it does not keep",
    profile: "power",
    seeds: 20,
    breaks: ["linearizable", "neverLostAcknowledged"],
    spoil: withClients,
    plant: ({ shelf }) => {
      const write = shelf.writeCell.bind(shelf);
      shelf.writeCell = (serial, who, name, value) =>
        who === "a" ? "good" : write(serial, who, name, value);
    },
  },
  addressesWander: {
    wrong: "clients are never told that an address has moved, and do not ask",
    profile: "power",
    seeds: 20,
    breaks: ["noEndlessDark"],
    spoil: withClients,
    plant: ({ clients }) => {
      for (const client of clients) {
        const learn = client.learn.bind(client);
        let first = true;
        client.learn = (address, who) => {
          if (first) learn(address, who);
          first = false;
        };
      }
    },
  },
  readsUnheld: {
    wrong: "a read shows what is not on the disk yet",
    profile: "everything",
    seeds: 600,
    breaks: ["linearizable"],
    spoil: (plan) => {
      const { setup } = withClients(plan);
      return { ...plan, setup: { ...setup, readBarrier: false } };
    },
  },
  clocksDrift: {
    wrong: "the clocks drift further than the margin covers",
    profile: "everything",
    seeds: 600,
    breaks: ["neverTwoAnswers", "noEndlessDark"],
    spoil: (plan) => {
      const drift = (ppm: number) => ({ ppm, originMs: 0 });
      return {
        ...plan,
        setup: { ...plan.setup, clocks: { a: drift(-60_000), b: drift(60_000) } },
      };
    },
  },
};

function withClients(plan: Plan): Plan {
  return { ...plan, setup: { ...plan.setup, clients: { perServer: 3, thinkMs: 15 } } };
}

export const planted: Readonly<Record<string, Planted>> = {
  ...inMain,
  ...inDefinitions,
  ...inBeat,
  ...inWorld,
};
