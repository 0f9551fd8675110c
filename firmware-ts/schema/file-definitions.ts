/** What a configuration file defines: the virtual servers that a new pair begins with. */
import type { Config } from "./config.ts";
import type { Definition } from "./definition.ts";

/** Entry *i* is number *i*, never changed, and to be served. */
export function fileDefinitions({ virtualServers }: Pick<Config, "virtualServers">): Definition[] {
  return virtualServers.map((server, number) => ({
    number,
    sequence: 0,
    wanted: "started",
    server,
  }));
}
