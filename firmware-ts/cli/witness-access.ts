/** From the words of a command line to a witness that can be asked. */
import { readFileSync } from "node:fs";
import { readPairKey } from "../../hal/linux/pair-key.ts";
import type { Witness } from "../../hal/port/witness.ts";
import { builtInWitness } from "../../hal/witness/built-in.ts";
import { type EtcdOptions, etcdWitness } from "../../hal/witness/etcd.ts";
import type { Fault } from "../schema/outcome.ts";
import { explain } from "../schema/outcome.ts";
import { witnessPairSchema } from "../schema/witness.ts";
import { CliError, exitCodes } from "./exit.ts";

export interface EtcdWords {
  readonly pair: string;
  readonly etcd?: string[] | undefined;
  readonly etcdCa?: string | undefined;
  readonly etcdCert?: string | undefined;
  readonly etcdCertKey?: string | undefined;
  readonly etcdUser?: string | undefined;
  readonly etcdPasswordFile?: string | undefined;
}

export interface AccessWords extends EtcdWords {
  readonly at?: string | undefined;
  readonly keyFile?: string | undefined;
}

const usage = (message: string) => new CliError(exitCodes.usage, "usage", message);

export const faultError = (fault: Fault) =>
  new CliError(exitCodes.failure, fault.code, explain(fault));

export function openWitness(words: AccessWords): Witness {
  const pair = checkedPair(words.pair);
  if (words.etcd !== undefined) {
    if (words.at !== undefined) throw usage("--at or --etcd, not both");
    return etcdWitness(etcdOptions(words));
  }
  if (words.at === undefined || words.keyFile === undefined)
    throw usage("expected --at HOST:PORT and --key-file PATH, or --etcd URL");
  const address = parseAddress(words.at);
  const key = readPairKey(words.keyFile);
  if (!key.ok) throw faultError(key.fault);
  return builtInWitness({ ...address, pair, key: key.value });
}

export function etcdOptions(words: EtcdWords): EtcdOptions {
  const pair = checkedPair(words.pair);
  const [first, ...others] = (words.etcd ?? []).map(parseUrl);
  if (first === undefined) throw usage("expected --etcd URL");
  const { etcdCa, etcdCert, etcdCertKey, etcdUser, etcdPasswordFile } = words;
  if ((etcdCert === undefined) !== (etcdCertKey === undefined))
    throw usage("--etcd-cert and --etcd-cert-key go together");
  if ((etcdUser === undefined) !== (etcdPasswordFile === undefined))
    throw usage("--etcd-user and --etcd-password-file go together");
  const tls = {
    ...(etcdCa === undefined ? {} : { ca: readText(etcdCa) }),
    ...(etcdCert === undefined ? {} : { cert: readText(etcdCert) }),
    ...(etcdCertKey === undefined ? {} : { key: readText(etcdCertKey) }),
  };
  const user =
    etcdUser === undefined || etcdPasswordFile === undefined
      ? {}
      : { user: { name: etcdUser, password: readText(etcdPasswordFile).replace(/\n$/, "") } };
  return { pair, endpoints: [first, ...others], tls, ...user };
}

export function checkedPair(pair: string): string {
  const parsed = witnessPairSchema.safeParse(pair);
  if (parsed.success) return parsed.data;
  throw usage(`--pair: ${parsed.error.issues[0]?.message}`);
}

/** `host:port`, or `[address]:port` of IPv6. */
export function parseAddress(text: string): { readonly host: string; readonly port: number } {
  const [, bracketed, plain, digits] =
    /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  const port = Number(digits);
  if (host === undefined || port > 65_535)
    throw usage(`expected HOST:PORT or [ADDRESS]:PORT, found ${text}`);
  return { host, port };
}

function parseUrl(text: string): URL {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol) || url.pathname !== "/" || url.search !== "")
    throw usage(`--etcd: expected http://HOST:PORT or https://HOST:PORT, found ${text}`);
  return url;
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new CliError(exitCodes.failure, "ioError", `${path}: ${(error as Error).message}`);
  }
}
