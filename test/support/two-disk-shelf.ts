/** A shelf of two disks for each test of a file, and initiators that end with it. */
import { afterEach, beforeEach } from "vitest";
import { type Shelf, startShelf } from "../../hal/shelf/target/shelf.ts";
import { Initiator } from "./shelf-initiator.ts";

const MEBIBYTE = 1024 * 1024;

const start = (more: object) =>
  startShelf({
    listen: { port: 0 },
    disks: [
      { serial: "D0", lun: 0, sizeBytes: 4 * MEBIBYTE },
      { serial: "D1", lun: 1, sizeBytes: 4 * MEBIBYTE },
    ],
    ...more,
  });

/** Has every test of the file that calls it start with a fresh shelf. */
export function twoDiskShelf() {
  let shelf: Shelf;
  let open: Initiator[] = [];
  beforeEach(async () => {
    shelf = await start({});
  });
  afterEach(async () => {
    for (const initiator of open) initiator.end();
    open = [];
    await shelf.close();
  });
  return {
    get shelf() {
      return shelf;
    },
    /** Ends it, so that another can be started in its place. */
    close: () => shelf.close(),
    async start(more: object) {
      shelf = await start(more);
    },
    async login(name: string) {
      const initiator = await Initiator.login(shelf.port, name, [0, 1]);
      open.push(initiator);
      return initiator;
    },
    async connect(name: string, isid?: string) {
      const initiator = await Initiator.connect(shelf.port, name, isid);
      open.push(initiator);
      return initiator;
    },
  };
}
