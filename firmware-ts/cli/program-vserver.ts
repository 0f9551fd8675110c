/** `dyad vserver …`: look at virtual servers, move them, create, change and delete them. */
import { Argument, Option } from "@commander-js/extra-typings";
import type { VirtualServerInput } from "../schema/config.ts";
import type { ControllerId } from "../schema/ids.ts";
import {
  type Context,
  move,
  optionsOf,
  type Parent,
  type ParsedOptions,
  wholeNumber,
  withCommandOptions,
} from "./program-parts.ts";

export function addVirtualServers(program: Parent, context: Context): void {
  const vserver = program.command("vserver").description("virtual servers");
  addLooks(vserver, context);
  withCommandOptions(vserver.command("transfer"))
    .description("move one virtual server to the other controller")
    .argument("<name>")
    .action((name, options) => move(context, options, { kind: "transfer", name }));
  addCreate(vserver, context);
  addModify(vserver, context);
  addActions(vserver, context);
  addAddress(vserver, context);
  addRoute(vserver, context);
  addRule(vserver, context);
  addExport(vserver, context);
  addShare(vserver, context);
  addUser(vserver, context);
  addLimit(vserver, context);
}

function addLooks(vserver: Parent, { environment, common, finish }: Context): void {
  vserver
    .command("list")
    .description("all virtual servers")
    .action(async () => {
      const { listVirtualServers } = await import("./show.ts");
      finish(await listVirtualServers(environment.io, common()));
    });
  vserver
    .command("show")
    .description("one virtual server: how it is, and what it is to be")
    .argument("<name>")
    .option("--toml", "only what it is to be, as create and modify read it")
    .action(async (name, options) => {
      const { showVirtualServer } = await import("./show.ts");
      const all = { ...common(), tomlOnly: options.toml === true };
      finish(await showVirtualServer(environment.io, all, name));
    });
}

const homeOption = () =>
  new Option("--home <controller>", "where it is served when both are well").choices(["a", "b"]);

/** Of an option that may be given several times. */
const collect = (word: string, words: string[] = []) => [...words, word];

function addCreate(vserver: Parent, context: Context): void {
  withCommandOptions(vserver.command("create"))
    .description("create a virtual server, and start it")
    .argument("[new-name]")
    .option(
      "--file <file>",
      "all of it: TOML or JSON, as [[virtual_servers]] has it; - reads standard input",
    )
    .addOption(homeOption())
    .option("--address <address/prefix>", "a floating address; several times", collect)
    .option("--export <disk=export>", "a volume, as in data-3=/gamma; several times", collect)
    .option(
      "--share <disk=share>",
      "a volume for SMB, as in data-3=Projects; several times",
      collect,
    )
    .option("--guest", "whoever is no user comes as a guest by SMB")
    .option("--user <name=uid>", "who may come by SMB, as in anna=1001:100; several times", collect)
    .option("--route <route>", 'as in "default via 10.0.0.1 table 7"; several times', collect)
    .option("--rule <rule>", 'as in "10.0.0.0/24 table 7"; several times', collect)
    .option("--limit <key=value>", "as in memory_mb=2048; several times", collect)
    .action(async (name, options) => {
      const { createServer } = await import("./change.ts");
      const server = await described(name, options);
      context.finish(
        await createServer(context.environment.io, optionsOf(context, options), server),
      );
    });
}

interface Description {
  readonly file?: string | undefined;
  readonly home?: ControllerId | undefined;
  readonly address?: readonly string[] | undefined;
  readonly export?: readonly string[] | undefined;
  readonly share?: readonly string[] | undefined;
  readonly guest?: true | undefined;
  readonly user?: readonly string[] | undefined;
  readonly route?: readonly string[] | undefined;
  readonly rule?: readonly string[] | undefined;
  readonly limit?: readonly string[] | undefined;
}

/** From a file, from the command line, or what the command line adds to a file. */
async function described(name: string | undefined, words: Description) {
  const [{ readServerFile, routeOf, ruleOf, userOf, volumesOf }, { edits }] = await Promise.all([
    import("./server-file.ts"),
    import("./edit.ts"),
  ]);
  const { CliError, exitCodes } = await import("./exit.ts");
  const file = words.file === undefined ? undefined : await readServerFile(words.file);
  const called = name ?? file?.name;
  if (called === undefined)
    throw new CliError(
      exitCodes.usage,
      "usage",
      "expected the name of the new virtual server, or --file",
    );
  const { defaultLimits } = await import("../schema/config.ts");
  const server = {
    ...file,
    limits: file?.limits ?? defaultLimits,
    name: called,
    home: words.home ?? file?.home,
    addresses: [...(file?.addresses ?? []), ...(words.address ?? [])],
    routes: [...(file?.routes ?? []), ...(words.route ?? []).map(routeOf)],
    rules: [...(file?.rules ?? []), ...(words.rule ?? []).map(ruleOf)],
    volumes: [...(file?.volumes ?? []), ...volumesOf(words.export ?? [], words.share ?? [])],
  };
  const limited = edits.setLimits(server, words.limit ?? []);
  return edits.admit(limited, words.guest ?? false, (words.user ?? []).map(userOf));
}

function addModify(vserver: Parent, context: Context): void {
  withCommandOptions(vserver.command("modify"))
    .description("change a virtual server")
    .argument("<name>")
    .option("--file <file>", "all of it, as it is to be; - reads standard input")
    .addOption(homeOption())
    .action(async (name, options) => {
      const { CliError, exitCodes } = await import("./exit.ts");
      const { file, home } = options;
      if (file === undefined && home === undefined)
        throw new CliError(
          exitCodes.usage,
          "usage",
          "expected --file or --home; parts are changed by address, route, rule, export, share, user and limit",
        );
      const { readServerFile } = await import("./server-file.ts");
      const whole = file === undefined ? undefined : await readServerFile(file);
      await edit(context, name, options, (_, server) => ({
        ...(whole ?? server),
        ...(home === undefined ? {} : { home }),
      }));
    });
}

function addActions(vserver: Parent, context: Context): void {
  const actions = [
    ["start", "serve one that was stopped"],
    ["stop", "stop one; it stays stopped until it is started"],
    ["delete", "delete one; what is on its disks stays there"],
  ] as const;
  for (const [action, description] of actions)
    withCommandOptions(vserver.command(action))
      .description(description)
      .argument("<name>")
      .action(async (name, options) => {
        const { commandServer } = await import("./change.ts");
        const { io } = context.environment;
        context.finish(await commandServer(io, optionsOf(context, options), action, name));
      });
}

type Edits = typeof import("./edit.ts").edits;

/** Changes one part of a definition. */
async function edit(
  context: Context,
  name: string,
  options: ParsedOptions,
  how: (edits: Edits, server: VirtualServerInput) => VirtualServerInput,
): Promise<void> {
  const [{ editServer }, { edits }] = await Promise.all([
    import("./change.ts"),
    import("./edit.ts"),
  ]);
  const { io } = context.environment;
  const change = (server: VirtualServerInput) => how(edits, server);
  context.finish(await editServer(io, optionsOf(context, options), name, change));
}

function addAddress(vserver: Parent, context: Context): void {
  const address = vserver.command("address").description("its floating addresses");
  withCommandOptions(address.command("add"))
    .description("add addresses")
    .argument("<name>")
    .argument("<address/prefix...>")
    .action((name, list, options) =>
      edit(context, name, options, (edits, server) => edits.addAddresses(server, list)),
    );
  withCommandOptions(address.command("remove"))
    .description("remove addresses")
    .argument("<name>")
    .argument("<address...>")
    .action((name, list, options) =>
      edit(context, name, options, (edits, server) => edits.removeAddresses(server, list)),
    );
}

function withRouteOptions(command: ReturnType<typeof withCommandOptions>) {
  return command
    .option("--via <gateway>", "absent: what it leads to is on the link")
    .option("--table <number>", "absent: the main one", wholeNumber);
}

function addRoute(vserver: Parent, context: Context): void {
  const route = vserver.command("route").description("its routing table");
  const of = (to: string, { via, table }: { via?: string; table?: number }) => ({
    to,
    ...(via === undefined ? {} : { via }),
    ...(table === undefined ? {} : { table }),
  });
  withRouteOptions(withCommandOptions(route.command("add")))
    .description("add a route, behind those that are there")
    .argument("<name>")
    .argument("<destination>", "a prefix, or default")
    .action((name, to, options) =>
      edit(context, name, options, (edits, server) => edits.addRoute(server, of(to, options))),
    );
  withRouteOptions(withCommandOptions(route.command("remove")))
    .description("remove a route")
    .argument("<name>")
    .argument("<destination>", "a prefix, or default")
    .action((name, to, options) =>
      edit(context, name, options, (edits, server) => edits.removeRoute(server, of(to, options))),
    );
}

function addRule(vserver: Parent, context: Context): void {
  const rule = vserver.command("rule").description("rules that choose among routing tables");
  withCommandOptions(rule.command("add"))
    .description("what comes from there is routed by that table")
    .argument("<name>")
    .argument("<prefix>")
    .addArgument(new Argument("<table>").argParser(wholeNumber))
    .action((name, from, table, options) =>
      edit(context, name, options, (edits, server) => edits.addRule(server, from, table)),
    );
  withCommandOptions(rule.command("remove"))
    .description("remove a rule, or all of a prefix")
    .argument("<name>")
    .argument("<prefix>")
    .addArgument(new Argument("[table]").argParser(wholeNumber))
    .action((name, from, table, options) =>
      edit(context, name, options, (edits, server) => edits.removeRule(server, from, table)),
    );
}

function addExport(vserver: Parent, context: Context): void {
  const exported = vserver.command("export").description("its volumes, and what clients mount");
  withCommandOptions(exported.command("add"))
    .description("export a disk; a new one is served after a stop and a start")
    .argument("<name>")
    .argument("<disk>", "by serial number")
    .argument("<export>", "what clients mount")
    .action((name, disk, path, options) =>
      edit(context, name, options, (edits, server) =>
        edits.addVolume(server, "export", disk, path),
      ),
    );
  withCommandOptions(exported.command("remove"))
    .description("export it no more; what is on the disk stays there")
    .argument("<name>")
    .argument("<export>", "or its disk, which goes even if it is shared")
    .action((name, word, options) =>
      edit(context, name, options, (edits, server) => edits.removeVolume(server, "export", word)),
    );
}

function addShare(vserver: Parent, context: Context): void {
  const share = vserver.command("share").description("its volumes, and what SMB clients find");
  withCommandOptions(share.command("add"))
    .description("share a disk; a new one is served after a stop and a start")
    .argument("<name>")
    .argument("<disk>", "by serial number")
    .argument("<share>", "what clients find")
    .option("--guest", "whoever is no user comes as a guest, to all its shares")
    .option("--user <name=uid>", "who may come, as in anna=1001:100; several times", collect)
    .action(async (name, disk, word, options) => {
      const { userOf } = await import("./server-file.ts");
      const users = (options.user ?? []).map(userOf);
      await edit(context, name, options, (edits, server) =>
        edits.admit(edits.addVolume(server, "share", disk, word), options.guest ?? false, users),
      );
    });
  withCommandOptions(share.command("remove"))
    .description("share it no more; what is on the disk stays there")
    .argument("<name>")
    .argument("<share>", "or its disk, which goes even if it is exported")
    .action((name, word, options) =>
      edit(context, name, options, (edits, server) => edits.removeVolume(server, "share", word)),
    );
  withCommandOptions(share.command("set"))
    .description("how all its shares are: workgroup, guest, write_through")
    .argument("<name>")
    .argument("<key=value...>")
    .action((name, words, options) =>
      edit(context, name, options, (edits, server) => edits.setSmb(server, words)),
    );
}

function addUser(vserver: Parent, context: Context): void {
  const user = vserver.command("user").description("who may come to its shares");
  withCommandOptions(user.command("add"))
    .description("let users in; their passwords lie on its first volume")
    .argument("<name>")
    .argument("<user=uid...>", "as in anna=1001:100, with the numbers that own their files")
    .action(async (name, words, options) => {
      const { userOf } = await import("./server-file.ts");
      const users = words.map(userOf);
      await edit(context, name, options, (edits, server) => edits.admit(server, false, users));
    });
  withCommandOptions(user.command("remove"))
    .description("let a user in no more; the password stays where it is")
    .argument("<name>")
    .argument("<user>")
    .action((name, word, options) =>
      edit(context, name, options, (edits, server) => edits.removeUser(server, word)),
    );
}

function addLimit(vserver: Parent, context: Context): void {
  const limit = vserver.command("limit").description("how much of its controller it may use");
  withCommandOptions(limit.command("set"))
    .description("set limits, or take one away with KEY=none")
    .argument("<name>")
    .argument("<key=value...>")
    .action((name, words, options) =>
      edit(context, name, options, (edits, server) => edits.setLimits(server, words)),
    );
}
