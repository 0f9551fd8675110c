/**
 * Whether the addresses that were put on the interface of a place are still there, and the interface (US 7,200,622, claim 1: the interface information of
 * a virtual server). The kernel tells of every change of links and addresses in a network namespace (rtnetlink(7)).
 *
 * Obligations: the kernel is asked only when it has told of something that matters, and never on the caller's thread: whoever asks waits for
 * everybody who is changing a network of this machine.
 */
import { formatAddress } from "../../../firmware-ts/schema/ip-address.ts";
import { done, failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import type { Addresses } from "../../port/addresses.ts";
import { attributesOf, type NetlinkMessage, NetlinkSocket, netlinkProtocol } from "../netlink.ts";
import type { Readiness } from "../readiness.ts";
import {
  addressGroups,
  getLinkLater,
  IFA_LOCAL_OR_ADDRESS,
  IFF_UP,
  IFLA_IFNAME,
  linkGroup,
  linkHeaderBytes,
  listAddressesLater,
  RTM_DELADDR,
  RTM_DELLINK,
  RTM_NEWLINK,
} from "../rtnetlink.ts";

/** As long as something is missing, that is told again. */
const againMs = 1000;

/** struct ifaddrmsg */
const addressHeaderBytes = 8;

const loopback = "lo";

/** The name of the link that a message is about. */
function linkOf({ body }: NetlinkMessage): string {
  const name = attributesOf(body.subarray(linkHeaderBytes)).get(IFLA_IFNAME);
  return name?.subarray(0, -1).toString() ?? "";
}

/** The address with its prefix that a message is about. */
function addressOf({ body }: NetlinkMessage): string {
  const attributes = attributesOf(body.subarray(addressHeaderBytes));
  const bytes = IFA_LOCAL_OR_ADDRESS.map((type) => attributes.get(type)).find(Boolean);
  return bytes ? `${formatAddress(bytes)}/${body[1]}` : "";
}

export class AddressWatch {
  readonly #nic: string;
  readonly #expected = new Set<string>();
  #lost: (reason: string) => void = () => undefined;
  /** For questions, one at a time; undefined as long as nobody listens. */
  #questions: NetlinkSocket | undefined;
  #asking = false;
  /** Something was told while a question was under way, whose answer may be older. */
  #isStale = false;
  #again: NodeJS.Timeout | undefined;
  #end: () => void = () => undefined;
  /** Something was told of a link since the interface was known to be what it should be. */
  #isDoubtful = false;

  constructor(nic: string) {
    this.#nic = nic;
  }

  /** Begins to listen; called in the place. Fault `ioError`. */
  listen(readiness: Readiness, lost: (reason: string) => void): Outcome {
    const questions = NetlinkSocket.open(netlinkProtocol.route);
    if (!questions.ok) return questions;
    const events = NetlinkSocket.open(netlinkProtocol.route, linkGroup | addressGroups);
    if (!events.ok) {
      questions.value.close();
      return events;
    }
    const heard = readiness.add(events.value.descriptor, "input", () => this.#hear(events.value));
    if (!heard.ok) {
      events.value.close();
      questions.value.close();
      return failed("ioError", `watch ${this.#nic}`, "not heard", heard.fault);
    }
    this.#lost = lost;
    this.#questions = questions.value;
    this.#end = () => {
      heard.value();
      events.value.close();
    };
    return done;
  }

  /** Nothing was told that would speak against the interface's being what it was made. */
  get isSure(): boolean {
    return this.#questions !== undefined && !this.#isDoubtful;
  }

  /** The interface is known to be what it should be. */
  restored(): void {
    this.#isDoubtful = false;
  }

  /** Addresses that are added are expected from then on, until they are removed. */
  around(addresses: Addresses): Addresses {
    return {
      ...addresses,
      add: async (nic, address, prefixLength) => {
        const added = await addresses.add(nic, address, prefixLength);
        if (added.ok) this.#expected.add(`${address}/${prefixLength}`);
        return added;
      },
      remove: (nic, address, prefixLength) => {
        this.#expected.delete(`${address}/${prefixLength}`);
        return addresses.remove(nic, address, prefixLength);
      },
    };
  }

  close(): void {
    clearTimeout(this.#again);
    this.#expected.clear();
    this.#end();
    this.#end = () => undefined;
    // A question that is under way closes its socket when it is answered.
    if (!this.#asking) this.#questions?.close();
    this.#questions = undefined;
  }

  #hear(events: NetlinkSocket): void {
    const told = events.drain();
    const isDoubtful = !told.ok || told.value.some((each) => this.#speaksAgainst(each));
    this.#isDoubtful ||= isDoubtful;
    // Of events that were lost nobody knows what they said.
    if (isDoubtful || (told.ok && told.value.some((each) => this.#takes(each)))) void this.#look();
  }

  #speaksAgainst(message: NetlinkMessage): boolean {
    if (message.type !== RTM_NEWLINK && message.type !== RTM_DELLINK) return false;
    const name = linkOf(message);
    if (name !== this.#nic && name !== loopback) return false;
    const isUp = (message.body.readUInt32LE(8) & IFF_UP) !== 0;
    return message.type === RTM_DELLINK || !isUp;
  }

  #takes(message: NetlinkMessage): boolean {
    return message.type === RTM_DELADDR && this.#expected.has(addressOf(message));
  }

  async #look(): Promise<void> {
    const socket = this.#questions;
    this.#isStale = true;
    if (this.#asking || !socket || this.#expected.size === 0) return;
    clearTimeout(this.#again);
    this.#asking = true;
    let missing = good<string | undefined>(undefined);
    while (this.#isStale && missing.ok && missing.value === undefined) {
      this.#isStale = false;
      missing = await this.#missing(socket);
    }
    this.#asking = false;
    if (this.#questions !== socket) return socket.close();
    const isWell = missing.ok && missing.value === undefined;
    // Taken away by whoever put it there, meanwhile.
    if (isWell || this.#expected.size === 0) return;
    this.#again = setTimeout(() => void this.#look(), againMs).unref();
    if (missing.ok && missing.value !== undefined) this.#lost(missing.value);
  }

  /** What is not as it should be, in words. Fault `addressFailed`: the kernel does not say. */
  async #missing(socket: NetlinkSocket): Promise<Outcome<string | undefined>> {
    const lo = await getLinkLater(socket, loopback);
    if (lo.ok && !lo.value.up) return good(`its interface ${loopback} is down`);
    const link = await getLinkLater(socket, this.#nic);
    if (!link.ok) return good(`its interface ${this.#nic} is gone`);
    if (!link.value.up) return good(`its interface ${this.#nic} is down`);
    const listed = await listAddressesLater(socket, link.value.index);
    if (!listed.ok) return listed;
    const present = new Set(listed.value.map((each) => `${each.address}/${each.prefixLength}`));
    const gone = [...this.#expected].filter((each) => !present.has(each));
    if (gone.length === 0) return good(undefined);
    return good(`${gone.join(", ")} ${gone.length > 1 ? "are" : "is"} gone from its interface`);
  }
}
