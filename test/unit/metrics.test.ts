/** The metrics page: names and units, states as 0/1, and that nothing of an earlier scrape remains. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { createMetrics } from "../../firmware-ts/telemetry/metrics.ts";
import { healthyStatus } from "../support/fake-daemon.ts";

const api = { requests: 10, errors: { badRequest: 2 }, streams: 1, streamsDropped: 0 };
const mqtt = { connected: true, connects: 2, published: 30, dropped: 4, refused: 0 };

const sampleLines = (page: string) => page.split("\n").filter((line) => /^[a-z]/.test(line));

test("the samples of a healthy pair", async () => {
  const page = await createMetrics().render(healthyStatus(), { api, mqtt });
  expect(sampleLines(page)).toEqual(
    expect.arrayContaining([
      'dyad_info{controller="a"} 1',
      "dyad_uptime_seconds 93784",
      "dyad_epoch 7",
      'dyad_mode{mode="paired"} 1',
      'dyad_mode{mode="alone"} 0',
      'dyad_health{health="ok"} 1',
      "dyad_partner_heard 1",
      "dyad_takeover_possible 1",
      "dyad_giveback_possible 0",
      'dyad_refused_frames_total{reason="mac"} 3',
      'dyad_link_colour{link="disk",colour="yellow"} 1',
      'dyad_link_colour{link="disk",colour="green"} 0',
      'dyad_link_silence_seconds{link="disk"} 0.041',
      'dyad_link_malformed_frames_total{link="network"} 2',
      'dyad_disk_path_up{disk="data-1",role="data"} 1',
      'dyad_disk_owner{disk="data-2",owner="b"} 1',
      'dyad_vserver_state{vserver="beta",state="elsewhere"} 1',
      'dyad_vserver_at_home{vserver="alpha"} 1',
      'dyad_vserver_last_start_seconds{vserver="alpha"} 0.0615',
      'dyad_vserver_failures{vserver="alpha"} 0',
      'dyad_vserver_cpu_seconds_total{vserver="alpha"} 81.5',
      'dyad_vserver_cpu_throttled_seconds_total{vserver="alpha"} 2.5',
      'dyad_vserver_memory_bytes{vserver="beta"} 6501171.2',
      'dyad_vserver_processes{vserver="alpha"} 23',
      'dyad_vserver_oom_kills_total{vserver="alpha"} 1',
      'dyad_vserver_forks_refused_total{vserver="alpha"} 0',
      "dyad_api_requests_total 10",
      'dyad_api_errors_total{code="badRequest"} 2',
      "dyad_mqtt_connected 1",
      "dyad_mqtt_dropped_total 4",
    ]),
  );
});

test("every name has the prefix; times are seconds and sizes bytes; counters end in _total", async () => {
  const page = await createMetrics().render(healthyStatus(), { api, mqtt });
  const types = [...page.matchAll(/^# TYPE (\S+) (\S+)$/gm)];
  expect(types.length).toBeGreaterThan(20);
  for (const [, name, type] of types) {
    expect(name).toMatch(/^dyad_[a-z_]+$/);
    expect(name).not.toMatch(/_(ms|millis|kb|mb)(_|$)/);
    expect(name?.endsWith("_total")).toBe(type === "counter");
  }
});

test("a second scrape shows the second state only", async () => {
  const metrics = createMetrics();
  await metrics.render(healthyStatus(), { api, mqtt });
  const virtualServers = healthyStatus().virtualServers.map((each) => ({ ...each, failures: 3 }));
  const alone = { mode: "alone" as const, links: [], refusedFrames: {}, virtualServers };
  const later = { ...healthyStatus(), ...alone };
  const page = await metrics.render(later, { api: { ...api, requests: 11 } });
  const lines = sampleLines(page);
  expect(lines).toContain('dyad_mode{mode="alone"} 1');
  expect(lines).toContain('dyad_mode{mode="paired"} 0');
  expect(lines).toContain('dyad_vserver_failures{vserver="beta"} 3');
  expect(lines).toContain("dyad_api_requests_total 11");
  expect(lines.filter((line) => /^dyad_(link|refused_frames|mqtt)/.test(line))).toEqual([]);
});

test("takeovers are a histogram by kind that exists before the first and lasts over scrapes", async () => {
  const metrics = createMetrics();
  const before = sampleLines(await metrics.render(healthyStatus(), {}));
  expect(before).toContain('dyad_takeover_duration_seconds_count{kind="failure"} 0');
  metrics.observeTakeover("failure", 180);
  metrics.observeTakeover("failure", 240);
  metrics.observeTakeover("planned", 45);
  await metrics.render(healthyStatus(), {});
  const lines = sampleLines(await metrics.render(healthyStatus(), {}));
  expect(lines).toContain('dyad_takeover_duration_seconds_bucket{le="0.2",kind="failure"} 1');
  expect(lines).toContain('dyad_takeover_duration_seconds_bucket{le="0.3",kind="failure"} 2');
  expect(lines).toContain('dyad_takeover_duration_seconds_sum{kind="failure"} 0.42');
  expect(lines).toContain('dyad_takeover_duration_seconds_bucket{le="0.05",kind="planned"} 1');
});

test("the manual names every metric, and none that does not exist", async () => {
  const page = await createMetrics().render(healthyStatus(), { api, mqtt });
  const real = [...page.matchAll(/^# TYPE (\S+) /gm)].map((match) => match[1]);
  const manual = readFileSync(join(import.meta.dirname, "../../docs/metrics.md"), "utf8");
  const documented = [...manual.matchAll(/^\| `(dyad_[a-z_]+)/gm)].map((match) => match[1]);
  expect(documented.toSorted()).toEqual(real.toSorted());
});

test("what the kernel does not tell of a virtual server has no series", async () => {
  const page = await createMetrics().render(healthyStatus(), { api, mqtt });
  expect(page).not.toContain('dyad_vserver_cpu_seconds_total{vserver="beta"}');
  expect(page).not.toContain('dyad_vserver_oom_kills_total{vserver="beta"}');
});
