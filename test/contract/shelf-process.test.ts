/** The shelf as a process: control socket, restart with reservations, and refusals to start. */
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Status } from "../../firmware-ts/wire/scsi/codes.ts";
import { ReservationType } from "../../firmware-ts/wire/scsi/reservation.ts";
import type { ShelfConfig } from "../../hal/shelf/target/config.ts";
import { Initiator } from "../support/shelf-initiator.ts";
import { control, newFolder, type ShelfProcess, startProcess } from "../support/shelf-process.ts";

const WERO = ReservationType.writeExclusiveRegistrantsOnly;
let folder: ReturnType<typeof newFolder>;
let shelf: ShelfProcess | null;

const config = (): ShelfConfig => ({
  listen: { port: 0 },
  disks: [
    {
      serial: "P0",
      lun: 0,
      sizeBytes: 1024 * 1024,
      backingFile: join(folder.path, "p0"),
      aptplFile: join(folder.path, "p0.aptpl"),
    },
  ],
  controlSocket: join(folder.path, "control"),
});

beforeEach(() => {
  folder = newFolder();
  shelf = null;
});

afterEach(async () => {
  await shelf?.end("SIGKILL");
  folder.remove();
});

const start = async () => {
  shelf = await startProcess(config(), folder.path);
  return shelf;
};

describe("a kill and a restart", () => {
  test("keep what was written, and reservations with APTPL; those without are gone", async () => {
    const first = await start();
    const a = await Initiator.login(first.port, "a");
    const b = await Initiator.login(first.port, "b");
    const stranger = await Initiator.login(first.port, "c");
    await b.reserveOut("registerAndIgnore", { target: 11n }, { aptpl: true });
    await a.reserveOut("registerAndIgnore", { target: 10n }, { aptpl: true });
    await a.reserveOut("reserve", { key: 10n }, { type: WERO });
    const data = Buffer.alloc(512, 7);
    expect((await a.write(3, data))?.status).toBe(Status.good);
    await first.end("SIGKILL");

    const second = await start();
    const again = await Initiator.login(second.port, "a");
    const other = await Initiator.login(second.port, "c");
    expect((await again.read(3))?.data).toEqual(data);
    expect((await again.write(3, data))?.status).toBe(Status.good);
    expect((await other.write(3, data))?.status).toBe(Status.reservationConflict);
    const peer = await Initiator.login(second.port, "b");
    const fence = await peer.reserveOut("preempt", { key: 11n, target: 10n }, { type: WERO });
    expect(fence?.status).toBe(Status.good);
    await second.end("SIGKILL");

    const third = await start();
    const loser = await Initiator.login(third.port, "a");
    expect((await loser.write(3, data))?.status).toBe(Status.reservationConflict);
    const winner = await Initiator.login(third.port, "b");
    await winner.reserveOut("registerAndIgnore", { target: 11n }, { aptpl: false });
    await third.end("SIGKILL");

    const fourth = await start();
    const free = await Initiator.login(fourth.port, "c");
    expect((await free.write(3, data))?.status).toBe(Status.good);
    for (const initiator of [a, b, stranger, again, other, peer, loser, winner, free]) {
      initiator.end();
    }
  });

  test("SIGTERM ends it in order and takes the socket along", async () => {
    const running = await start();
    expect(await running.end("SIGTERM")).toBe(0);
    expect(existsSync(join(folder.path, "control"))).toBe(false);
    shelf = null;
  });
});

describe("the control socket", () => {
  test("sets, lists and lifts faults, and shows the state", async () => {
    const { port } = await start();
    const a = await Initiator.login(port, "a");
    await a.reserveOut("registerAndIgnore", { target: 10n });
    await a.reserveOut("reserve", { key: 10n }, { type: WERO });
    const socket = join(folder.path, "control");
    expect(statSync(socket).mode & 0o077).toBe(0);
    const action = { kind: "delay", delayMs: 5 };
    const answers = await control(socket, [
      JSON.stringify({ fault: "set", id: "slow", disk: "P0", initiator: a.name, action }),
      JSON.stringify({ fault: "list" }),
      JSON.stringify({ status: true }),
      JSON.stringify({ fault: "clear" }),
    ]);
    const fault = { id: "slow", disk: "P0", initiator: a.name, operations: "all", action };
    expect(answers).toMatchObject([
      { ok: true, id: "slow" },
      { ok: true, faults: [fault] },
      {
        ok: true,
        status: {
          port,
          disks: [
            {
              serial: "P0",
              type: WERO,
              generation: 1,
              registrations: [{ initiator: a.name, key: "0xa", holder: true }],
            },
          ],
          sessions: [{ initiator: a.name, isid: a.isid, blackholed: false }],
        },
      },
      { ok: true, cleared: ["slow"] },
    ]);
    a.end();
  });

  test("answers nonsense with what is wrong", async () => {
    await start();
    const socket = join(folder.path, "control");
    const answers = await control(socket, [
      "{",
      "{}",
      '{"fault":"set","action":{"kind":"delay"}}',
      '{"fault":"set","disc":"P0","action":{"kind":"error"}}',
      "[]",
    ]);
    for (const answer of answers) expect(answer).toMatchObject({ ok: false });
    expect(JSON.stringify(answers[2])).toContain("delayMs");
    expect(JSON.stringify(answers[3])).toContain("disc");
    expect(await control(socket, ["x".repeat(70_000)])).toMatchObject([{ ok: false }]);
    expect(await control(socket, ['{"fault":"list"}'])).toEqual([{ ok: true, faults: [] }]);
  });
});

describe("it does not start", () => {
  test("with a wrong configuration, and names the field", async () => {
    const wrong = { ...config(), disks: [{ serial: "x y", lun: 0, sizeBytes: 5000 }] };
    await expect(startProcess(wrong, folder.path)).rejects.toThrow(/ended with 1/);
  });

  test("with a record of reservations that it cannot read", async () => {
    writeFileSync(join(folder.path, "p0.aptpl"), '{"version":1,');
    await expect(start()).rejects.toThrow(/ended with 1/);
    expect(readFileSync(join(folder.path, "p0.aptpl"), "utf8")).toBe('{"version":1,');
  });
});
