/** A real mosquitto for one test file: free port, password, TLS with a CA of its own; and a subscriber that collects. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import mqtt from "mqtt";
import { freePort } from "./free-port.ts";

export const brokerUser = "appliance";
export const brokerPassword = "correct horse";

export interface Broker {
  readonly directory: string;
  readonly url: string;
  readonly tlsUrl: string;
  readonly caFile: string;
  readonly passwordFile: string;
  readonly process: () => ChildProcess;
  readonly start: () => Promise<void>;
  /** Ends it as a crash would. */
  readonly kill: () => Promise<void>;
  readonly remove: () => Promise<void>;
}

/** Prepares certificates, passwords and ports; `start` runs it. */
export async function prepareBroker(): Promise<Broker> {
  const directory = mkdtempSync(join(tmpdir(), "dyad-mosquitto-"));
  const [port, tlsPort] = [await freePort(), await freePort()];
  const file = (name: string) => join(directory, name);
  const openssl = (...args: string[]) => execFileSync("openssl", args, { stdio: "ignore" });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl(
    "req",
    "-x509",
    ...key,
    "-days",
    "2",
    "-subj",
    "/CN=test CA",
    "-keyout",
    file("ca.key"),
    "-out",
    file("ca.pem"),
  );
  openssl(
    "req",
    ...key,
    "-subj",
    "/CN=localhost",
    "-addext",
    "subjectAltName=DNS:localhost,IP:127.0.0.1",
    "-keyout",
    file("server.key"),
    "-out",
    file("server.csr"),
  );
  openssl(
    "x509",
    "-req",
    "-in",
    file("server.csr"),
    "-CA",
    file("ca.pem"),
    "-CAkey",
    file("ca.key"),
    "-CAcreateserial",
    "-copy_extensions",
    "copy",
    "-days",
    "2",
    "-out",
    file("server.pem"),
  );
  execFileSync("mosquitto_passwd", ["-c", "-b", file("passwords"), brokerUser, brokerPassword]);
  writeFileSync(file("password"), `${brokerPassword}\n`);
  writeFileSync(file("acl"), `user ${brokerUser}\ntopic readwrite dyad/#\ntopic read #\n`);
  writeFileSync(
    file("mosquitto.conf"),
    [
      "per_listener_settings false",
      "persistence false",
      "allow_anonymous false",
      `password_file ${file("passwords")}`,
      `acl_file ${file("acl")}`,
      `user ${process.getuid?.() === 0 ? "root" : ""}`.trim(),
      `listener ${port} 127.0.0.1`,
      `listener ${tlsPort} 127.0.0.1`,
      `cafile ${file("ca.pem")}`,
      `certfile ${file("server.pem")}`,
      `keyfile ${file("server.key")}`,
    ]
      .filter((line) => line !== "user")
      .join("\n"),
  );
  let child: ChildProcess | undefined;
  const running = () => {
    if (child === undefined) throw new Error("mosquitto is not running");
    return child;
  };
  const kill = async () => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;
  };
  return {
    directory,
    url: `mqtt://127.0.0.1:${port}`,
    tlsUrl: `mqtts://127.0.0.1:${tlsPort}`,
    caFile: file("ca.pem"),
    passwordFile: file("password"),
    process: running,
    async start() {
      child = spawn("mosquitto", ["-c", file("mosquitto.conf")], {
        stdio: ["ignore", "ignore", "pipe"],
      });
      let output = "";
      for await (const chunk of running().stderr ?? []) {
        output += chunk;
        if (/mosquitto version .* running/.test(output)) break;
      }
      if (!/ running/.test(output)) throw new Error(`mosquitto did not start: ${output}`);
      running().stderr?.resume();
    },
    kill,
    async remove() {
      await kill();
      rmSync(directory, { recursive: true });
    },
  };
}

export interface Received {
  readonly topic: string;
  readonly text: string;
  readonly retained: boolean;
  readonly qos: number;
}

/** Subscribes to everything under `dyad/` and collects. */
export async function subscribe(broker: Broker) {
  const client = await mqtt.connectAsync(broker.url, {
    protocolVersion: 5,
    username: brokerUser,
    password: brokerPassword,
  });
  const received: Received[] = [];
  client.on("message", (topic, payload, packet) => {
    received.push({ topic, text: payload.toString(), retained: packet.retain, qos: packet.qos });
  });
  // Without "retain as published" a live message arrives as not retained: the flag then means "from before".
  await client.subscribeAsync("dyad/#", { qos: 1 });
  return { received, end: () => client.endAsync(true) };
}
