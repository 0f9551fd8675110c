/** A controller's HTTP API, over its unix socket. */
import { request } from "node:http";
import { eventListSchema } from "../../firmware-ts/schema/api.ts";
import {
  type CommandAnswer,
  commandAnswerSchema,
  type OperatorEvent,
  type PanelView,
  panelViewSchema,
  type Status,
  statusSchema,
} from "../../firmware-ts/schema/status.ts";
import { BenchError } from "./error.ts";

/** A controller that says nothing for this long is treated as one that does not answer. */
const timeoutMs = 1000;
const commandTimeoutMs = 10_000;

export class ControllerApi {
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  /** Throws when there is no daemon, or it does not answer in time. */
  async status(): Promise<Status> {
    return statusSchema.parse(await this.#ask("GET", "/v1/status"));
  }

  async statusIfUp(): Promise<Status | undefined> {
    return await this.status().catch(() => undefined);
  }

  async events(after: number): Promise<readonly OperatorEvent[]> {
    const list = eventListSchema.parse(await this.#ask("GET", `/v1/events?after=${after}`));
    return list.events;
  }

  async panel(): Promise<PanelView> {
    return panelViewSchema.parse(await this.#ask("GET", "/v1/panel"));
  }

  takeover(): Promise<CommandAnswer> {
    return this.#command("/v1/takeover");
  }

  giveback(): Promise<CommandAnswer> {
    return this.#command("/v1/giveback");
  }

  /** One virtual server to the other controller. */
  transfer(name: string): Promise<CommandAnswer> {
    return this.#command(`/v1/vservers/${name}/transfer`);
  }

  async #command(path: string): Promise<CommandAnswer> {
    const body = { reason: "bench" };
    return commandAnswerSchema.parse(await this.#ask("POST", path, body, commandTimeoutMs));
  }

  #ask(method: string, path: string, body?: object, timeout = timeoutMs): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const fail = (cause: unknown) =>
        reject(new BenchError("worldBroken", `${method} ${path}`, "no answer", cause));
      const text = body === undefined ? undefined : JSON.stringify(body);
      const headers =
        text === undefined
          ? {}
          : { "content-type": "application/json", "content-length": Buffer.byteLength(text) };
      const asked = request(
        { socketPath: this.#socketPath, method, path, headers, agent: false, timeout },
        (answer) => {
          const chunks: Buffer[] = [];
          answer.on("data", (chunk: Buffer) => chunks.push(chunk));
          answer.on("error", fail);
          answer.on("end", () => {
            const said = Buffer.concat(chunks).toString();
            if ((answer.statusCode ?? 500) >= 300)
              return fail(new Error(`${answer.statusCode}: ${said.slice(0, 500)}`));
            try {
              resolve(JSON.parse(said));
            } catch (cause) {
              fail(cause);
            }
          });
        },
      );
      asked.on("timeout", () => asked.destroy(new Error(`nothing for ${timeout} ms`)));
      asked.on("error", fail);
      asked.end(text);
    });
  }
}
