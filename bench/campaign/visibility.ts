/**
 * Whether virtual servers with one private subnet see each other, and whether customers whose clients have one address reach their own server
 * and no other.
 */
import { join } from "node:path";
import { placeNic } from "../../hal/linux/place/place.ts";
import { run } from "../world/exec.ts";
import { customerClient, type PlannedServer } from "../world/layout.ts";
import type { World } from "../world/world.ts";

const nfsPort = 2049;

/** What was asked, and what must not have been the answer. */
export interface Visibility {
  /** Questions whose answer was the right one. */
  readonly right: number;
  readonly problems: readonly string[];
}

const connect = (address: string) => [
  ...["socat", "-u", "OPEN:/dev/null", `TCP:${address}:${nfsPort},connect-timeout=1`],
];

/** Words that run a program in the network of a virtual server on its home. */
function inPlace(world: World, { name, home }: PlannedServer) {
  const network = join(world.machines[home].paths.runDir, "networks", name);
  return [...world.machines[home].enterWords(), "nsenter", `--net=${network}`, "--"] as const;
}

interface Question {
  readonly what: string;
  readonly wanted: boolean;
  readonly words: readonly string[];
}

function questionsOf(world: World): Question[] {
  const { servers, namespaces } = world.layout;
  return servers.flatMap((server, i) => {
    const client = ["nsenter", `--net=/run/netns/${namespaces.clients[i]}`, "--"];
    const place = inPlace(world, server);
    return servers.flatMap(({ name, address }): Question[] => {
      const asked: Question = {
        what: `the client ${customerClient} of ${server.name} connects to NFS at ${address}`,
        wanted: name === server.name,
        words: [...client, ...connect(address)],
      };
      if (name === server.name) return [asked];
      return [
        asked,
        {
          what: `${server.name} connects to NFS at ${address}`,
          wanted: false,
          words: [...place, ...connect(address)],
        },
        {
          what: `${server.name} asks for the hardware address of ${address}`,
          wanted: false,
          words: [...place, "arping", "-c", "2", "-w", "1", "-I", placeNic, address],
        },
      ];
    });
  });
}

/** Every virtual server against every other one, from its place and from its client. */
export async function visibility(world: World): Promise<Visibility> {
  const answers = await Promise.all(
    questionsOf(world).map(async ({ what, wanted, words: [program = "", ...args] }) => {
      const answered = await run(program, args).then(
        () => true,
        () => false,
      );
      return { isRight: answered === wanted, text: `${what}: ${answered ? "yes" : "no"}` };
    }),
  );
  const wrong = answers.filter(({ isRight }) => !isRight);
  return { right: answers.length - wrong.length, problems: wrong.map(({ text }) => text) };
}
