/**
 * The v3 API of etcd as JSON over HTTP (its gRPC gateway, prefix /v3 since etcd 3.4): the three calls that a witness needs. Keys and values
 * are base64, 64-bit numbers are strings. Source: etcd 3.4, api_grpc_gateway.md and rpc.proto.
 */
import type { RequestOptions } from "node:https";
import { z } from "zod";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { postJson } from "./call.ts";

export interface EtcdAccess {
  /** `http://HOST:PORT` or `https://HOST:PORT`. */
  readonly endpoint: URL;
  /** PEM. Absent: the authorities that Node trusts; no certificate of our own. */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string };
  readonly user?: { readonly name: string; readonly password: string };
}

const longText = z.string().regex(/^-?\d{1,20}$/);
const entrySchema = z.object({
  key: z.string(),
  value: z.string().default(""),
  mod_revision: longText,
});
const rangeSchema = z.object({
  kvs: z.array(entrySchema).max(1000).default([]),
  /** All in the range, also those that were not asked for. */
  count: longText.default("0"),
});
const txnSchema = z.object({
  header: z.object({}),
  succeeded: z.boolean().default(false),
  responses: z
    .array(z.object({ response_range: rangeSchema.optional() }))
    .max(8)
    .default([]),
});
const listedSchema = z.object({ header: z.object({}), kvs: rangeSchema.shape.kvs });
const tokenSchema = z.object({ token: z.string().max(8192) });
const errorSchema = z.object({ message: z.string().max(1000), code: z.number() });

export type EtcdTxn = z.infer<typeof txnSchema>;
export type EtcdEntry = z.infer<typeof entrySchema>;

export const base64 = (text: string): string => Buffer.from(text, "utf8").toString("base64");
export const fromBase64 = (text: string): string => Buffer.from(text, "base64").toString("utf8");

/** google.golang.org/grpc/codes. */
const permissionDenied = 7;
const unauthenticated = 16;

export interface EtcdGateway {
  /** Linearizable: etcd asks its quorum before it reads. */
  txn(body: unknown, deadlineMs: number): Promise<Outcome<EtcdTxn>>;
  /** All entries from `key` up to `end`, at most `limit`. */
  range(
    key: string,
    end: string,
    limit: number,
    deadlineMs: number,
  ): Promise<Outcome<readonly EtcdEntry[]>>;
}

/** Talks to one endpoint. It logs in when it is told to, once for each call; a token lives in etcd's memory and ends with it. */
export function etcdGateway({ endpoint, tls, user }: EtcdAccess): EtcdGateway {
  const secure = endpoint.protocol === "https:";
  let token: string | undefined;

  async function post<T>(
    path: string,
    body: unknown,
    schema: z.ZodType<T>,
    endMs: number,
  ): Promise<Outcome<T>> {
    const operation = `etcd ${endpoint.host}${path}`;
    const options: RequestOptions = {
      ...tls,
      // WHATWG URLs keep the brackets of an IPv6 address; a socket wants none.
      host: endpoint.hostname.replace(/^\[|\]$/g, ""),
      port: endpoint.port === "" ? (secure ? 443 : 80) : endpoint.port,
      path,
      ...(token === undefined ? {} : { headers: { authorization: token } }),
    };
    const leftMs = Math.max(1, endMs - performance.now());
    const called = await postJson(secure, options, JSON.stringify(body), leftMs);
    if (!called.ok) return called;
    const { status, body: said } = called.value;
    if (status !== 200) return refusal(operation, status, said);
    const parsed = schema.safeParse(said);
    return parsed.success
      ? good(parsed.data)
      : failed("badInput", operation, "it does not answer like etcd", parsed.error);
  }

  /** SAFETY: repeated only after a refusal for want of a login, which etcd gives before it does anything. */
  async function loggedIn<T>(
    path: string,
    body: unknown,
    schema: z.ZodType<T>,
    deadlineMs: number,
  ): Promise<Outcome<T>> {
    const endMs = performance.now() + deadlineMs;
    const first = await post(path, body, schema, endMs);
    if (first.ok || first.fault.code !== "refused" || user === undefined) return first;
    token = undefined;
    const login = await post("/v3/auth/authenticate", user, tokenSchema, endMs);
    if (!login.ok) return login;
    token = login.value.token;
    return await post(path, body, schema, endMs);
  }

  return {
    txn: (body, deadlineMs) => loggedIn("/v3/kv/txn", body, txnSchema, deadlineMs),
    async range(key, end, limit, deadlineMs) {
      const body = { key: base64(key), range_end: base64(end), limit: String(limit) };
      const listed = await loggedIn("/v3/kv/range", body, listedSchema, deadlineMs);
      return listed.ok ? good(listed.value.kvs) : listed;
    },
  };
}

function refusal(operation: string, status: number, said: unknown): Outcome<never> {
  const parsed = errorSchema.safeParse(said);
  if (!parsed.success) return failed("badInput", operation, `it answers with status ${status}`);
  const { message, code } = parsed.data;
  // etcd 3.4 says "user name is empty" (InvalidArgument) to whoever has not logged in, server/etcdserver/api/v3rpc/rpctypes.
  const login =
    code === unauthenticated ||
    code === permissionDenied ||
    /user name is empty|authentication failed/.test(message);
  return failed(login ? "refused" : "ioError", operation, `etcd refuses: ${message}`);
}
