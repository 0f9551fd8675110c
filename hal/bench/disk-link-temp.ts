import type { DiskLinkHandlers, Link } from "../port/link.ts";
import type { Slot } from "./slots.ts";
export function openDiskLink(o: {
  me: "a" | "b";
  slots: readonly Slot[];
  periodMs: number;
  handlers: DiskLinkHandlers;
}): Link {
  const mine = o.me === "a" ? 8 : 16,
    theirs = o.me === "a" ? 16 : 8;
  const c = { sent: 0, received: 0, dropped: 0, malformed: 0 };
  let up: boolean | undefined;
  const last = o.slots.map(() => "");
  const busyW = o.slots.map(() => false),
    busyR = o.slots.map(() => false),
    okR = o.slots.map(() => 0);
  const poll = () => {
    const now = performance.now();
    o.slots.forEach((s, i) => {
      if (busyR[i]) return;
      busyR[i] = true;
      void s.read(theirs).then((b) => {
        busyR[i] = false;
        if (!b) return;
        okR[i] = performance.now();
        const n = (b[0] ?? 0) * 256 + (b[1] ?? 0);
        if (n === 0 || n > 510) return;
        const f = b.subarray(2, 2 + n);
        const k = Buffer.from(f).toString("base64");
        if (k === last[i]) return;
        last[i] = k;
        c.received++;
        o.handlers.frame(new Uint8Array(f), performance.now());
      });
    });
    const good =
      okR.filter((t) => now - (t ?? 0) < 5 * o.periodMs && t).length * 2 > o.slots.length;
    if (good !== up) {
      up = good;
      o.handlers.carrier(good, good ? "read" : "unreadable");
    }
  };
  const timer = setInterval(poll, o.periodMs);
  return {
    name: "disk",
    maxFrameBytes: 510,
    send(frame) {
      const b = new Uint8Array(512);
      b[0] = frame.length >> 8;
      b[1] = frame.length & 255;
      b.set(frame, 2);
      const at = performance.now();
      c.sent++;
      const ws = o.slots.map(async (s, i) => {
        if (busyW[i]) return "failed";
        busyW[i] = true;
        try {
          return await s.write(mine, b);
        } finally {
          busyW[i] = false;
        }
      });
      void Promise.all(ws).then((r) =>
        o.handlers.written(
          at,
          r.filter((x) => x === "good").length,
          r.filter((x) => x === "conflict").length,
          r.length,
        ),
      );
    },
    counters: () => ({ ...c }),
    close: async () => clearInterval(timer),
  };
}
