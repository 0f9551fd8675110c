/** What is recorded of a virtual server that is served here, from the mount table of this very process. */
import { describe, expect, test } from "vitest";
import { createVolume } from "../../firmware-ts/daemon/volume.ts";
import type { ToBeat } from "../../firmware-ts/loop/channel.ts";
import { type RecordedState, recordedStateSchema } from "../../firmware-ts/schema/definition.ts";
import { failed, good } from "../../firmware-ts/schema/outcome.ts";
import { recordedState } from "../../hal/linux/place/recorded-state.ts";
import { recordOf } from "../support/volume-records.ts";

const proc = { disk: "d1", path: "/proc" };
const unmounted = { disk: "d2", path: "/no/such/mount" };

describe("the state of a place", () => {
  test("is what is mounted, which device that is, and how it is reached", () => {
    const state = recordedState([proc, unmounted], () => good(["default via 10.0.0.1 dev data0"]));
    expect(state).toEqual({
      mounts: [expect.stringMatching(/^proc \/proc proc rw/)],
      routes: ["default via 10.0.0.1 dev data0"],
      devices: [expect.stringMatching(/^d1 proc 0:\d+$/)],
    });
  });

  test("is empty where nothing is mounted: whoever has no volume here is not served here", () => {
    const routes = () => {
      throw new Error("nobody asks for its routes");
    };
    expect(recordedState([unmounted], routes)).toEqual({ mounts: [], routes: [], devices: [] });
  });

  test("says what could not be read, and keeps to its bounds", () => {
    const silent = recordedState([proc], () => failed("addressFailed", "list routes", "no answer"));
    expect(silent.routes).toEqual(["list routes: no answer [addressFailed]"]);
    const many = recordedState([proc], () => good(new Array<string>(100).fill("x".repeat(300))));
    expect(recordedStateSchema.parse(many).routes).toHaveLength(64);
  });
});

describe("a record on its way to the disks", () => {
  const write = (state: RecordedState) => {
    const sent: ToBeat[] = [];
    const log: string[] = [];
    const volume = createVolume({
      common: {
        read: async () => failed("ioError", "test", "not read"),
        close: async () => undefined,
      },
      beat: (message) => sent.push(message),
      total: 3,
      machine: { placeState: () => state },
      pair: 17,
      log: (message) => log.push(message),
    });
    const given = { mounts: ["as it was given"], routes: [], devices: [] };
    volume.write(recordOf({ state: given }), 60_000, () => undefined);
    const [message] = sent;
    if (message?.kind !== "volumeWrite") throw new Error("nothing was written");
    volume.written({
      kind: "volumeWritten",
      token: message.token,
      written: { accepted: 3, refused: 0, overtaken: 0, total: 3 },
    });
    return { state: message.record.state, given, log };
  };

  test("carries the state of what is served here, and otherwise the one that it has", () => {
    const state = { mounts: ["m"], routes: ["r"], devices: ["d"] };
    expect(write(state).state).toEqual(state);
    const elsewhere = write({ mounts: [], routes: [], devices: [] });
    expect(elsewhere.state).toEqual(elsewhere.given);
  });

  test("leaves behind a state that would not fit, and says so", () => {
    const { state, log } = write({
      mounts: ["m"],
      routes: new Array<string>(64).fill("é".repeat(200)),
      devices: [],
    });
    expect(state).toEqual({ mounts: [], routes: [], devices: [] });
    expect(log).toEqual([
      expect.stringMatching(/room for \d+ \[badInput\]; written without the state$/),
    ]);
  });
});
