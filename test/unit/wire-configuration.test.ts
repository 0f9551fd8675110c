/** The fingerprint of the shared configuration: what goes into it, in which form, so that another release computes the same. */
import { crc32 } from "node:zlib";
import { describe, expect, test } from "vitest";
import { type Config, configSchema } from "../../firmware-ts/schema/config.ts";
import { sharedConfigurationCrc } from "../../firmware-ts/wire/configuration.ts";

const config: Config = configSchema.parse({
  version: 1,
  controller: { id: "a" },
  pair: { id: 17, keyFile: "/etc/dyad/pair.key" },
  timing: {
    startupWaitMs: 1500,
    progressTimeoutMs: 500,
    clockMarginMs: 15,
    soloGateTimeoutMs: 400,
    gateTimeoutMs: 150,
    diskSilenceMs: 100,
    linkSilenceMs: 60,
    diskBeatIntervalMs: 20,
    beatIntervalMs: 10,
  },
  links: { network: { local: "192.168.254.1", partner: "192.168.254.2" } },
  data: { nic: "eth0" },
  shelf: {
    portal: "10.99.0.1:3260",
    target: "iqn.2026-11.net.example:shelf-1",
    initiatorName: "iqn.2026-11.net.example:a",
    coordinators: ["c3", "c1", "c2"],
  },
  virtualServers: [
    {
      volumes: [{ export: "/z", disk: "d1" }],
      name: "zulu",
      home: "b",
      addresses: ["10.0.0.9/24"],
    },
  ],
});

const fingerprint = sharedConfigurationCrc(config);

describe("the fingerprint of the shared configuration", () => {
  test("is the CRC-32 of one canonical text: JSON without white space, keys sorted", () => {
    const text = [
      '{"coordinators":["c1","c2","c3"],"pair":17,"target":"iqn.2026-11.net.example:shelf-1",',
      '"timing":{"beatIntervalMs":10,"clockMarginMs":15,"diskBeatIntervalMs":20,"diskSilenceMs":100,',
      '"gateTimeoutMs":150,"linkSilenceMs":60,"progressTimeoutMs":500,"soloGateTimeoutMs":400,',
      '"startupWaitMs":1500}}',
    ].join("");
    expect(fingerprint).toBe(crc32(text));
  });

  test("does not depend on the order in which keys were read", () => {
    const reversed = Object.fromEntries(Object.entries(config).toReversed()) as unknown as Config;
    expect(sharedConfigurationCrc(reversed)).toBe(fingerprint);
    const timing = Object.fromEntries(
      Object.entries(config.timing).toReversed(),
    ) as unknown as Config["timing"];
    expect(sharedConfigurationCrc({ ...config, timing })).toBe(fingerprint);
  });

  test("does not depend on the order of coordinators, which mean a set", () => {
    const shelf = { ...config.shelf, coordinators: ["c1", "c2", "c3"] };
    expect(sharedConfigurationCrc({ ...config, shelf })).toBe(fingerprint);
  });

  test("does not depend on virtual servers, which have fingerprints of their own", () => {
    expect(sharedConfigurationCrc({ ...config, virtualServers: [] })).toBe(fingerprint);
  });
});
