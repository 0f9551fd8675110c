/** mosquitto on the data LAN, as a site would run one: a password, and TLS if asked for. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Cgroup } from "./cgroup.ts";
import { run } from "./exec.ts";
import { brokerAddress, type Layout } from "./layout.ts";
import { mqttUser, planPaths } from "./plan.ts";
import type { Processes, Started } from "./processes.ts";

/** A day is longer than any run. */
const certificateDays = "1";

async function makeCertificates(layout: Layout): Promise<void> {
  const at = (name: string) => join(layout.baseDir, name);
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  await run("openssl", [
    ...["req", "-x509", ...key, "-days", certificateDays, "-subj", "/CN=dyad bench CA"],
    ...["-keyout", at("ca.key"), "-out", planPaths(layout).caFile],
  ]);
  await run("openssl", [
    ...["req", "-x509", ...key, "-days", certificateDays, "-subj", "/CN=dyad bench broker"],
    ...["-CA", planPaths(layout).caFile, "-CAkey", at("ca.key")],
    ...["-addext", `subjectAltName=IP:${brokerAddress}`],
    ...["-addext", "basicConstraints=critical,CA:FALSE"],
    ...["-keyout", at("broker.key"), "-out", at("broker.pem")],
  ]);
}

/** Writes password and configuration; returns the path of the latter. */
export async function prepareBroker(
  layout: Layout,
  password: string,
  tls: boolean,
): Promise<string> {
  const at = (name: string) => join(layout.baseDir, name);
  writeFileSync(planPaths(layout).passwordFile, password, { mode: 0o600 });
  await Promise.all([
    run("mosquitto_passwd", ["-c", "-b", at("mosquitto.passwd"), mqttUser, password]),
    ...(tls ? [makeCertificates(layout)] : []),
  ]);
  const listener = tls
    ? [
        `listener 8883 ${brokerAddress}`,
        `certfile ${at("broker.pem")}`,
        `keyfile ${at("broker.key")}`,
      ]
    : [`listener 1883 ${brokerAddress}`];
  const lines = [
    ...listener,
    "allow_anonymous false",
    `password_file ${at("mosquitto.passwd")}`,
    "persistence false",
    // It would otherwise become the user `mosquitto`, who may not enter our directory.
    "user root",
    "log_dest stdout",
  ];
  const path = at("mosquitto.conf");
  writeFileSync(path, `${lines.join("\n")}\n`);
  return path;
}

export function startBroker(
  layout: Layout,
  processes: Processes,
  cgroup: Cgroup,
  configPath: string,
): Started {
  return processes.start({
    role: "broker",
    cgroup,
    inside: layout.namespaces.broker,
    argv: ["mosquitto", "-c", configPath],
  });
}
