/** Both clients at servers that do wrong: rubbish, too much, nothing, a drip, a cut, other versions, other witnesses. */
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import { createServer as createSecureServer } from "node:https";
import { type AddressInfo, createServer as createTcpServer, type Server } from "node:net";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { witnessLimits } from "../../firmware-ts/schema/witness.ts";
import type { Witness } from "../../hal/port/witness.ts";
import { builtInWitness } from "../../hal/witness/built-in.ts";
import { answerBytesMax } from "../../hal/witness/call.ts";
import { etcdWitness } from "../../hal/witness/etcd.ts";
import { pskTls } from "../../hal/witness/psk.ts";
import { limitsMs } from "../support/limits.ts";

const key = new Uint8Array(32).fill(7);
const witness = "1".repeat(32);
const look = { kind: "look", witness, volume: "v" } as const;

const open: Server[] = [];
afterEach(() => {
  for (const server of open.splice(0)) {
    if ("closeAllConnections" in server) (server.closeAllConnections as () => void)();
    server.close();
  }
});

async function listen(server: Server): Promise<number> {
  open.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

type Serve = (respond: (response: ServerResponse) => void) => Promise<Witness>;

const serveBuiltIn: Serve = async (respond) => {
  const server = createSecureServer({ ...pskTls, pskCallback: () => key }, (_, response) =>
    respond(response),
  );
  return builtInWitness({ host: "127.0.0.1", port: await listen(server), pair: "alpha", key });
};

const serveEtcd: Serve = async (respond) => {
  const port = await listen(createServer((_, response) => respond(response)));
  return etcdWitness({ pair: "alpha", endpoints: [new URL(`http://127.0.0.1:${port}`)] });
};

describe.each([
  ["built-in", serveBuiltIn],
  ["etcd", serveEtcd],
])("%s", (_name, serve) => {
  const asked = async (
    respond: (response: ServerResponse) => void,
    ms: number = limitsMs.condition,
  ) => {
    const outcome = await (await serve(respond)).ask(look, ms);
    return outcome.ok ? outcome.value : outcome.fault.code;
  };

  test.each([
    ["no JSON", "<html>busy</html>"],
    ["nothing", ""],
    ["half", '{"witness":"11'],
    ["another shape", '{"witness":7}'],
    ["a list", "[]"],
    ["null", "null"],
    ["more than is asked for", `{"witness":"${witness}","result":"granted","record":null}`],
    [
      "a record that is none",
      `{"witness":"${witness}","result":"done","record":{"version":0,"base":"","standing":{}}}`,
    ],
  ])("%s is no answer", async (_what, text) => {
    expect(await asked((response) => response.end(text))).toBe("badInput");
  });

  test("another status is no answer", async () => {
    const text = `{"witness":"${witness}","result":"done","record":null}`;
    expect(await asked((response) => response.writeHead(500).end(text))).toBe("badInput");
    expect(await asked((response) => response.writeHead(302, { location: "/" }).end())).toBe(
      "badInput",
    );
  });

  test("too much is given up, and not waited for", async () => {
    const respond = (response: ServerResponse) => {
      response.write(Buffer.alloc(answerBytesMax + 1, 32));
    };
    expect(await asked(respond)).toBe("badInput");
  });

  test("a drip, or silence, ends with the deadline", async () => {
    const drips: NodeJS.Timeout[] = [];
    const drip = (response: ServerResponse) => {
      drips.push(setInterval(() => response.write(" "), 10));
    };
    try {
      expect(await asked(drip, 200)).toBe("timeout");
      expect(await asked(() => undefined, 200)).toBe("timeout");
    } finally {
      for (const each of drips) clearInterval(each);
    }
  });

  test("an answer that is cut off is none", async () => {
    const cut = (response: ServerResponse) => {
      response.writeHead(200, { "content-length": "500" });
      response.write('{"witness"', () => response.socket?.destroy());
    };
    expect(await asked(cut)).toBe("ioError");
  });
});

test("what is no HTTP is told as such", async () => {
  const server = createTcpServer((socket) => socket.end("SSH-2.0-OpenSSH_9.2\r\n"));
  const url = new URL(`http://127.0.0.1:${await listen(server)}`);
  const outcome = await etcdWitness({ pair: "alpha", endpoints: [url] }).ask(
    look,
    limitsMs.condition,
  );
  expect(outcome).toMatchObject({ fault: { code: "badInput" } });
});

describe("members of etcd", () => {
  let dead: URL;
  beforeAll(async () => {
    const server = createTcpServer();
    dead = new URL(`http://127.0.0.1:${await listen(server)}`);
    await new Promise((resolve) => server.close(resolve));
  });
  const base64 = (text: string) => Buffer.from(text).toString("base64");
  const alive = async (respond: (response: ServerResponse) => void) =>
    new URL(`http://127.0.0.1:${await listen(createServer((_, response) => respond(response)))}`);
  const answer = (response: ServerResponse) =>
    response.end(
      JSON.stringify({
        header: {},
        succeeded: true,
        responses: [
          {
            response_range: {
              kvs: [{ key: base64("k"), value: base64(witness), mod_revision: "3" }],
            },
          },
          { response_range: {} },
        ],
      }),
    );

  test("the next is asked when one is not there, or does not answer in its share of the time", async () => {
    const silent = await alive(() => undefined);
    const client = etcdWitness({ pair: "alpha", endpoints: [dead, silent, await alive(answer)] });
    expect(await client.ask(look, 4000)).toEqual({
      ok: true,
      value: { witness, result: "done", record: null },
    });
  });

  test("an identity that is missing is told with what to do", async () => {
    const empty = await alive((response) =>
      response.end(JSON.stringify({ header: {}, succeeded: true, responses: [] })),
    );
    const outcome = await etcdWitness({ pair: "alpha", endpoints: [empty] }).ask(
      look,
      limitsMs.condition,
    );
    expect(outcome).toMatchObject({
      fault: { code: "badInput", message: expect.stringContaining("dyad witness init") },
    });
  });

  test("a pair that has as many volumes as it may have gets no other", async () => {
    const written: string[] = [];
    const full = (count: string) =>
      alive((response) => {
        let body = "";
        response.req.on("data", (chunk) => {
          body += chunk;
        });
        response.req.on("end", () => {
          if (body.includes("compare")) written.push(body);
          const kvs = [{ key: base64("k"), value: base64(witness), mod_revision: "3" }];
          const ranges = [{ kvs }, {}, {}, { count }].map((response_range) => ({ response_range }));
          response.end(JSON.stringify({ header: {}, succeeded: true, responses: ranges }));
        });
      });
    const register = async (count: string) => {
      const client = etcdWitness({ pair: "alpha", endpoints: [await full(count)] });
      const by = { witness, volume: "v", side: "a", base: "g1", version: 0 } as const;
      return await client.ask({ kind: "register", ...by }, limitsMs.condition);
    };
    const { volumesMax } = witnessLimits;
    expect(await register(`${volumesMax}`)).toMatchObject({
      value: { result: "full", record: null },
    });
    expect(written).toEqual([]);
    expect(await register(`${volumesMax - 1}`)).toMatchObject({ value: { result: "done" } });
    // Two that are added at the same time: the second has to count again.
    expect(written[0]).toContain(base64("dyad-witness/alpha/newest"));
  });

  test("a record that changes between reading and writing all the time is given up", async () => {
    const changing = await alive((response) => {
      let body = "";
      response.req.on("data", (chunk) => {
        body += chunk;
      });
      response.req.on("end", () =>
        body.includes("compare") ? response.end('{"header":{}}') : answer(response),
      );
    });
    const outcome = await etcdWitness({ pair: "alpha", endpoints: [changing] }).ask(
      { kind: "register", witness, volume: "v", side: "a", base: "g1", version: 0 },
      limitsMs.condition,
    );
    expect(outcome).toMatchObject({ fault: { code: "ioError" } });
  });
});
