/** The services of several kinds of virtual servers that come, change and go, with drivers that only note what they are asked. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { VirtualServerConfig } from "../../firmware-ts/schema/config.ts";
import type { Definition } from "../../firmware-ts/schema/definition.ts";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { servicePortsOf, together } from "../../hal/bench/file-services.ts";
import {
  type BenchServices,
  type Listener,
  ServicePart,
  SpareLine,
} from "../../hal/bench/service-part.ts";
import { alpha } from "../support/volume-records.ts";

/** Of a disk with that export and that share. */
const serverOf = (offered: { export?: string; share?: string }): VirtualServerConfig => ({
  ...alpha,
  volumes: [{ id: 1, disk: "d1", ...offered }],
});
const defined = (server: VirtualServerConfig, number = 3): Definition => ({
  number,
  sequence: 1,
  wanted: "started",
  server,
});
const byNfs = serverOf({ export: "/alpha" });
const bySmb = serverOf({ share: "Alpha" });
const byBoth = serverOf({ export: "/alpha", share: "Alpha" });

function kindOf(way: "export" | "share", asked: string[], outcomes: Record<string, Outcome> = {}) {
  const exits: string[] = [];
  const hung: string[] = [];
  const tell: { current: Listener | undefined } = { current: undefined };
  const note = (what: string) => {
    asked.push(`${way} ${what}`);
    return Promise.resolve(outcomes[what.split(" ")[0] ?? ""] ?? done);
  };
  const part = new ServicePart<string>(
    {
      offers: ({ volumes }) => volumes.some((each) => each[way] !== undefined),
      specOf: ({ number, server }) => good(`${number}:${server.volumes[0]?.[way]}`),
      makeDriver(name, listener) {
        asked.push(`${way} made ${name}`);
        tell.current = listener;
        return {
          prepare: (spec) => note(`prepare ${spec}`),
          dropSpare: () => note("drop"),
          spareHeld: () => Promise.resolve(),
          start: async (spec) => {
            const outcome = await note(`start ${spec}`);
            return outcome.ok ? good(1) : outcome;
          },
          probe: () => Promise.resolve(good(1)),
          stop: () => note("stop"),
          kill: () => void note("kill"),
          processes: () => [7],
          killCount: () => 0,
          close: () => note("close"),
        };
      },
    },
    {
      line: new SpareLine(),
      handlers: {
        log: () => undefined,
        serviceExited: (name) => void exits.push(name),
        serviceHung: (name, reason) => void hung.push(`${name}: ${reason}`),
      },
    },
  );
  return { part, exits, hung, tell };
}

describe("services of several kinds", () => {
  let asked: string[];
  const taken = () => asked.splice(0);
  const open = (outcomes: Record<string, Outcome> = {}) => {
    const nfs = kindOf("export", asked);
    const smb = kindOf("share", asked, outcomes);
    const services: BenchServices = together([nfs.part, smb.part]);
    return { services, nfs, smb };
  };
  beforeEach(() => {
    asked = [];
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  test("are those that the definition has, and all of them", async () => {
    const { services } = open();
    services.define(defined(byBoth));
    expect(await services.start(byBoth, 1)).toEqual(done);
    services.kill("alpha");
    expect(await services.stop("alpha", 1)).toEqual(done);
    expect(taken()).toEqual([
      "export made alpha",
      "share made alpha",
      "export start 3:/alpha",
      "share start 3:Alpha",
      "export kill",
      "share kill",
      "export kill",
      "export stop",
      "share kill",
      "share stop",
    ]);
  });

  test("come and go with what is offered; what runs goes on until it is stopped", async () => {
    const { services } = open();
    services.define(defined(byNfs));
    await services.start(byNfs, 1);
    expect(taken()).toEqual(["export made alpha", "export start 3:/alpha"]);
    services.define(defined(byBoth));
    // It is started with what it is to be now, which need not be the newest definition.
    await services.stop("alpha", 1);
    await services.start(byNfs, 1);
    expect(taken()).toEqual([
      "share made alpha",
      "export kill",
      "export stop",
      "share kill",
      "share stop",
      "export start 3:/alpha",
    ]);
    await services.stop("alpha", 1);
    services.define(defined(bySmb));
    taken();
    await services.prepare("alpha");
    await services.start(bySmb, 1);
    // No spare of what is offered no more, and its last server is ended with the rest.
    expect(taken()).toEqual(["export drop", "share prepare 3:Alpha", "share start 3:Alpha"]);
    await services.stop("alpha", 1);
    expect(taken()).toContain("export stop");
    expect(await services.forget("alpha", 1)).toEqual(done);
    expect(taken()).toEqual(["export close", "share close"]);
    expect(await services.forget("alpha", 1)).toEqual(done);
    services.kill("alpha");
    expect(await services.stop("alpha", 1)).toEqual(done);
    expect(await services.prepare("alpha")).toEqual(done);
    expect(taken()).toEqual([]);
    await expect(services.start(bySmb, 1)).rejects.toThrow("is no virtual server's");
  });

  test.each(["start", "stop"])("are well only together: %s", async (action) => {
    const bad = failed("serviceSilent", "probe", "no answer");
    const { services } = open({ [action]: bad });
    services.define(defined(byBoth));
    const started = await services.start(byBoth, 1);
    expect(action === "start" ? started : await services.stop("alpha", 1)).toEqual(bad);
  });

  test("of which one is not ended is not forgotten, and is asked again", async () => {
    const late = failed("timeout", "close", "it lives");
    const { services } = open({ close: late });
    services.define(defined(bySmb));
    expect(await services.forget("alpha", 1)).toEqual(late);
    taken();
    expect(await services.forget("alpha", 1)).toEqual(late);
    expect(taken()).toEqual(["share close"]);
  });

  test("tell the end that nobody asked for, and get ready for the next start of what is defined then", async () => {
    const { services, smb } = open();
    services.define(defined(bySmb));
    await services.start(bySmb, 1);
    taken();
    const end = { pid: 1, code: 1, signal: null, lastWords: [] };
    smb.tell.current?.onEnd({ ...end, expected: true });
    expect(smb.exits).toEqual([]);
    smb.tell.current?.onEnd({ ...end, expected: false });
    expect(smb.exits).toEqual(["alpha"]);
    smb.tell.current?.onHung("no answer");
    expect(smb.hung).toEqual(["alpha: no answer"]);
    services.define(defined(bySmb, 5));
    await vi.advanceTimersByTimeAsync(5000);
    expect(taken()).toEqual(["share prepare 5:Alpha"]);
    smb.tell.current?.onEnd({ ...end, expected: true });
    await services.forget("alpha", 1);
    taken();
    await vi.advanceTimersByTimeAsync(5000);
    expect(taken()).toEqual([]);
  });

  test("get ready a second after the last start of any of them, and no later than ten after their own", async () => {
    const { services } = open();
    const beta = { ...byNfs, name: "beta" };
    services.define(defined(byNfs));
    services.define(defined(beta, 4));
    await services.start(byNfs, 1);
    await vi.advanceTimersByTimeAsync(900);
    await services.start(beta, 1);
    taken();
    await vi.advanceTimersByTimeAsync(999);
    expect(taken()).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(taken().toSorted()).toEqual(["export prepare 3:/alpha", "export prepare 4:/alpha"]);
    // Another one starts again and again.
    await services.start(byNfs, 1);
    let prepared = 0;
    for (let ms = 0; ms < 10_000; ms += 500) {
      expect(prepared).toBe(0);
      await services.start(beta, 1);
      await vi.advanceTimersByTimeAsync(500);
      prepared += taken().filter((each) => each === "export prepare 3:/alpha").length;
    }
    expect(prepared).toBe(1);
  });

  test("have their clients at ports of their own", () => {
    expect([byNfs, bySmb, byBoth].map(servicePortsOf)).toEqual([[2049], [445], [2049, 445]]);
  });
});
