/** `dyad witness …`: a witness for pairs without a shared disk: make one, run it, look at it (docs/witness.md). */
import { type Command, Option, type OptionValues } from "@commander-js/extra-typings";
import type { Context, Parent } from "./program-parts.ts";

const defaultDirectory = "/var/lib/dyad-witness";
const defaultListen = "0.0.0.0:7320";

export function addWitness(program: Parent, context: Context): void {
  const witness = program
    .command("witness")
    .description("the third party that says who may continue alone");
  addInit(witness, context);
  addServe(witness, context);
  addShow(witness, context);
  addRegister(witness, context);
}

const pairOption = () => new Option("--pair <pair>", "the pair's name at the witness");
const stateOption = () =>
  new Option("--state <path>", "the witness's directory").default(defaultDirectory);

/** Of an option that may be given several times. */
const collect = (word: string, words: string[] = []) => [...words, word];

/** The cluster, and who we are to it. */
const withEtcd = <Options extends OptionValues>(command: Command<[], Options>) =>
  command
    .addOption(
      new Option("--etcd <url>", "a member of an etcd cluster; may be repeated").argParser(collect),
    )
    .option("--etcd-ca <file>", "who may have signed etcd's certificate")
    .option("--etcd-cert <file>", "a certificate for etcd")
    .option("--etcd-cert-key <file>", "the key of that certificate")
    .option("--etcd-user <user>", "a user of etcd")
    .option("--etcd-password-file <file>", "that user's password");

/** How a witness of either kind is reached. */
const withAccess = <Options extends OptionValues>(command: Command<[], Options>) =>
  withEtcd(
    command
      .option("--at <address>", "HOST:PORT of a built-in witness")
      .option("--key-file <path>", "the pair's key at a built-in witness, as init has made it"),
  );

function addInit(witness: Parent, { environment, common, finish }: Context): void {
  withEtcd(
    witness
      .command("init")
      .description("make a witness here, or in etcd, and a key for a pair")
      .addOption(pairOption().makeOptionMandatory())
      .addOption(stateOption()),
  ).action(async (options) => {
    const { initWitness } = await import("./witness.ts");
    finish(await initWitness(environment.io, { ...common(), ...options }));
  });
}

function addServe(witness: Parent, { environment, finish }: Context): void {
  witness
    .command("serve")
    .description("run the witness that init has made, until it is ended")
    .addOption(stateOption())
    .option("--listen <address>", "HOST:PORT", defaultListen)
    .action(async (options) => {
      const { runWitness } = await import("./witness-serve.ts");
      finish(await runWitness(environment.io, options));
    });
}

function addShow(witness: Parent, { environment, common, finish }: Context): void {
  withAccess(
    witness
      .command("show")
      .description("who a witness is, and what it has of a pair")
      .addOption(pairOption().makeOptionMandatory()),
  ).action(async (options) => {
    const { showWitness } = await import("./witness.ts");
    finish(await showWitness(environment.io, { ...common(), ...options }));
  });
}

function addRegister(witness: Parent, { environment, common, finish }: Context): void {
  withAccess(
    witness
      .command("register")
      .description("register a volume for both controllers, when they cannot do it themselves")
      .addOption(pairOption().makeOptionMandatory())
      .requiredOption("--volume <id>", "the volume's id")
      .requiredOption("--generation <id>", "the generation that the surviving copy has")
      .requiredOption("--reason <text>", "why; kept with the record")
      .option("--yes", "do not ask for confirmation"),
  ).action(async (options) => {
    const { registerVolume } = await import("./witness.ts");
    finish(await registerVolume(environment.io, { ...common(), ...options }));
  });
}
