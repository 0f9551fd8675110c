/** How a program is started in the place of a virtual server, and how its ports are reached there. */
import type { Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { good } from "../../../firmware-ts/schema/outcome.ts";
import { enterProgram } from "../native-build.ts";
import { AF_INET, AF_INET6, openSocket, SOCK_STREAM } from "../syscalls.ts";
import type { PlacesFolder } from "./folder.ts";
import type { Place } from "./place.ts";

/** Words of a command line that may begin with variables of its environment (`NAME=value`). */
export type Command = readonly string[];

export interface ProgramPlace {
  /** Does something synchronous in its network: processes that are started, sockets that are opened. */
  inside<T>(action: () => T): T;
  /** The command line that starts a program among its own mounts only. Faults: `toolMissing`, `ioError`. */
  command(words: Command): Promise<Outcome<string[]>>;
  /** A socket of its network for a connection to an address of that family; negative: an error number. */
  socket(family: 4 | 6): number;
}

/** The programs of one virtual server; `groups` tells the files by which its control group is joined. */
export function programsOf(
  place: Place,
  folder: PlacesFolder,
  name: string,
  groups: () => Promise<readonly string[]> = async () => [],
): ProgramPlace {
  return {
    inside: (action) => place.inside(action),
    async command(words) {
      const enter = await enterProgram();
      if (!enter.ok) return enter;
      return good([enter.value, folder.path, name, ...(await groups()), "--", ...words]);
    },
    socket: (family) =>
      place.inside(() => openSocket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM, 0)),
  };
}

/** This process's own place: its network, its mounts. */
export const here: ProgramPlace = {
  inside: (action) => action(),
  command: (words) => Promise.resolve(good(["env", ...words])),
  socket: (family) => openSocket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM, 0),
};
