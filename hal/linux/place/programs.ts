/** How a program is started in the place of a virtual server, and how its ports are reached there. */
import { join } from "node:path";
import type { Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { failed, good } from "../../../firmware-ts/schema/outcome.ts";
import { enterProgram } from "../native-build.ts";
import { AF_INET, AF_INET6, openSocket, SOCK_STREAM } from "../syscalls.ts";
import type { PlacesFolder } from "./folder.ts";
import type { Place } from "./place.ts";

/** Words of a command line that may begin with variables of its environment (`NAME=value`). */
export type Command = readonly string[];

/** What a program sees at a path of its own mounts: another file or folder. */
export interface Instead {
  readonly target: string;
  readonly source: string;
}

export interface ProgramPlace {
  /** Does something synchronous in its network: processes that are started, sockets that are opened. */
  inside<T>(action: () => T): T;
  /** Where its volumes are mounted, each below the name of its disk. */
  readonly folder: string;
  /** The command line that starts a program among its own mounts only. Faults: `toolMissing`, `ioError`, `refused`. */
  command(words: Command, instead?: readonly Instead[]): Promise<Outcome<string[]>>;
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
    folder: join(folder.path, name),
    async command(words, instead = []) {
      const enter = await enterProgram();
      if (!enter.ok) return enter;
      const seen = instead.map(({ target, source }) => `+${target}=${source}`);
      const joined = await groups();
      return good([enter.value, folder.path, name, ...joined, ...seen, "--", ...words]);
    },
    socket: (family) =>
      place.inside(() => openSocket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM, 0)),
  };
}

/** This process's own place: its network, its mounts. */
export const here: ProgramPlace = {
  inside: (action) => action(),
  folder: "/",
  command: (words, instead = []) =>
    Promise.resolve(
      instead.length === 0
        ? good(["env", ...words])
        : failed("refused", "start a program", "its mounts are not its own"),
    ),
  socket: (family) => openSocket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM, 0),
};
