/** Process entry of one worker (writer or reader, with one engine); started by main.ts, which sends its settings as the only argument. */
import { randomUUID } from "node:crypto";
import { type Engine, noCounts } from "./engine.ts";
import { LibnfsEngine } from "./libnfs-engine.ts";
import { Nfs3Engine } from "./nfs3-engine.ts";
import { Nfs41Engine } from "./nfs41-engine.ts";
import { Outbox, send } from "./outbox.ts";
import { type ToWorker, type WorkerSettings, workerSettingsSchema } from "./protocol.ts";
import { Reader } from "./reader.ts";
import { Writer } from "./writer.ts";

const settings = workerSettingsSchema.parse(JSON.parse(process.argv[2] ?? ""));
const counters = noCounts();
const outbox = new Outbox(counters);
const engine = openEngine(settings);
const work =
  settings.role === "writer"
    ? new Writer(engine, outbox, settings)
    : new Reader(engine, outbox, settings);

/** Each is a client of its own to the server. */
function openEngine({ engine: name, target, name: client, role }: WorkerSettings): Engine {
  switch (name) {
    case "nfs3":
      return new Nfs3Engine(target, counters);
    case "libnfs":
      return new LibnfsEngine(target, counters);
    case "nfs41":
      return new Nfs41Engine(target, `${client}-${role}-${randomUUID()}`, counters);
  }
}

async function perform(message: ToWorker): Promise<void> {
  switch (message.type) {
    case "start":
      if (work instanceof Reader) await work.run();
      return;
    case "pause": {
      if (!(work instanceof Writer)) throw new Error("only the writer pauses");
      const segments = await work.pause();
      outbox.flush();
      send({ type: "paused", segments });
      return;
    }
    case "resume":
      if (work instanceof Writer) work.resume();
      return;
    case "verify": {
      if (!(work instanceof Reader)) throw new Error("only the reader verifies");
      const fresh = openEngine(settings);
      const found = await work.verify(fresh, message.segments);
      // Its watermark lets every write that the verification judges into the history first.
      outbox.flush();
      send(found);
      await fresh.close();
      return;
    }
    case "end":
      work.end();
      outbox.end();
      // Operations in flight may wait for a server that is gone: nothing after this is counted, so nothing is waited for.
      process.exit(0);
  }
}

process.on("message", (message: ToWorker) => void perform(message));
// Without its parent nobody would ever read or end this.
process.on("disconnect", () => process.exit(0));
if (work instanceof Writer) await work.create();
send({ type: "ready" });
if (work instanceof Writer) await work.run();
