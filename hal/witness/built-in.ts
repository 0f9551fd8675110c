/** A controller's way to a built-in witness (`dyad witness serve`): HTTPS with a pre-shared key, one connection for each question. */
import type { z } from "zod";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { witnessAnswerSchema, witnessListSchema } from "../../firmware-ts/schema/witness.ts";
import type { Witness } from "../port/witness.ts";
import { postJson } from "./call.ts";
import { identityOf, pskTls } from "./psk.ts";

export interface BuiltInOptions {
  readonly host: string;
  readonly port: number;
  readonly pair: string;
  /** 32 bytes, the same at the witness. */
  readonly key: Uint8Array;
}

/** A new connection each time: one that went dead unnoticed would cost a takeover its whole deadline. */
export function builtInWitness({ host, port, pair, key }: BuiltInOptions): Witness {
  async function ask<T>(
    path: string,
    body: unknown,
    schema: z.ZodType<T>,
    deadlineMs: number,
  ): Promise<Outcome<T>> {
    const options = {
      ...pskTls,
      host,
      port,
      path,
      // The key is the identity: there is no certificate whose name could be compared.
      checkServerIdentity: () => undefined,
      pskCallback: () => ({ psk: key, identity: identityOf(pair) }),
    };
    const called = await postJson(true, options, JSON.stringify(body), deadlineMs);
    if (!called.ok) return called;
    const operation = `ask witness ${host}:${port}`;
    const { status, body: answer } = called.value;
    if (status !== 200) return failed("badInput", operation, `it answers with status ${status}`);
    const parsed = schema.safeParse(answer);
    return parsed.success
      ? good(parsed.data)
      : failed("badInput", operation, "it does not answer like a witness", parsed.error);
  }
  return {
    ask: (request, deadlineMs) => ask("/v1/ask", request, witnessAnswerSchema, deadlineMs),
    list: (deadlineMs) => ask("/v1/list", {}, witnessListSchema, deadlineMs),
  };
}
