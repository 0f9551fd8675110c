/** VLANs of the data NIC: what the configuration takes, and what is said to the kernel about them. */
import { describe, expect, test } from "vitest";
import { configSchema, vlanName, vlansOf } from "../../firmware-ts/schema/config.ts";
import { fingerprintOf } from "../../firmware-ts/schema/definition-digest.ts";
import { fileDefinitions } from "../../firmware-ts/schema/file-definitions.ts";
import { vlanBody, vlanIn } from "../../hal/linux/rtnetlink-links.ts";
import { Pair } from "../../hal/sim/pair.ts";

const base = new Pair().config("a");
const withVlan = (vlan: unknown, nic = "eth0") => ({
  ...base,
  data: { nic },
  virtualServers: base.virtualServers.map((each, i) => (i === 0 ? { ...each, vlan } : each)),
});

describe("the configuration of a VLAN", () => {
  test.each([1, 5, 4094])("%i is one", (vlan) => {
    const config = configSchema.parse(withVlan(vlan));
    expect([...vlansOf(config.virtualServers)]).toEqual([vlan]);
    expect(vlanName(config.data.nic, vlan)).toBe(`eth0.${vlan}`);
  });

  test.each([0, 4095, -1, 1.5, "5"])("%j is none", (vlan) => {
    expect(configSchema.safeParse(withVlan(vlan)).success).toBe(false);
  });

  test("is named after the data NIC, which must leave room for it", () => {
    expect(configSchema.safeParse(withVlan(4094, "enp0s31f6a")).success).toBe(true);
    const { error } = configSchema.safeParse(withVlan(4094, "enp0s31f6ab"));
    expect(error?.issues.map(({ message }) => message)).toEqual([
      expect.stringContaining("enp0s31f6ab.4094 is longer than 15"),
    ]);
  });

  test("is something that both controllers must agree on", () => {
    const fingerprint = (vlan: unknown) =>
      fingerprintOf(0, fileDefinitions(configSchema.parse(withVlan(vlan))));
    expect(new Set([undefined, 5, 6].map(fingerprint)).size).toBe(3);
    expect(fingerprint(undefined)).toBe(fingerprintOf(0, fileDefinitions(base)));
  });
});

describe("the message that makes a VLAN", () => {
  test("is what ip-link(8) sends: its parent, name, kind and number", () => {
    const body = vlanBody({ parent: 7, name: "eth0.5", id: 5, alias: "dyad" });
    expect(body.toString("hex")).toBe(
      [
        // struct ifinfomsg
        "00000000000000000000000000000000",
        // IFLA_LINK 7
        "0800050007000000",
        // IFLA_IFNAME "eth0.5"
        "0b000300657468302e350000",
        // IFLA_LINKINFO, nested: IFLA_INFO_KIND "vlan", IFLA_INFO_DATA, nested: IFLA_VLAN_ID 5
        "1c00128009000100766c616e000000000c0002800600010005000000",
      ].join(""),
    );
  });

  test("reads back as what the kernel would say of it", () => {
    const wanted = { parent: 7, name: "eth0.4094", id: 4094, alias: "" };
    const body = vlanBody(wanted);
    body.writeInt32LE(12, 4);
    expect(vlanIn(body)).toEqual({ ...wanted, index: 12 });
  });

  test("is not read into another kind of link, or into a damaged one", () => {
    const other = Buffer.from(vlanBody({ parent: 7, name: "eth0.5", id: 5, alias: "" }));
    other.write("vxlan", other.indexOf("vlan"));
    expect(vlanIn(other)).toBeUndefined();
    expect(vlanIn(Buffer.alloc(16))).toBeUndefined();
    expect(vlanIn(Buffer.alloc(40, 1))).toBeUndefined();
  });
});
