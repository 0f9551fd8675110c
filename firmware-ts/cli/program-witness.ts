/** `dyad witness …`: a witness for pairs without a shared disk: make one, run it, look at it (docs/witness.md). */
import { Option } from "@commander-js/extra-typings";
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

/** How a witness is reached. */
const atOption = () => new Option("--at <address>", "HOST:PORT of a built-in witness");
const keyOption = () =>
  new Option("--key-file <path>", "the pair's key at a built-in witness, as init has made it");
const etcdOption = () =>
  new Option("--etcd <url>", "a member of an etcd cluster; may be repeated").argParser(collect);
const caOption = () => new Option("--etcd-ca <file>", "who may have signed etcd's certificate");
const certOption = () => new Option("--etcd-cert <file>", "a certificate for etcd");
const certKeyOption = () => new Option("--etcd-cert-key <file>", "the key of that certificate");
const userOption = () => new Option("--etcd-user <user>", "a user of etcd");
const passwordOption = () => new Option("--etcd-password-file <file>", "that user's password");

function addInit(witness: Parent, { environment, common, finish }: Context): void {
  witness
    .command("init")
    .description("make a witness here, or in etcd, and a key for a pair")
    .addOption(pairOption().makeOptionMandatory())
    .addOption(stateOption())
    .addOption(etcdOption())
    .addOption(caOption())
    .addOption(certOption())
    .addOption(certKeyOption())
    .addOption(userOption())
    .addOption(passwordOption())
    .action(async (options) => {
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
  witness
    .command("show")
    .description("who a witness is, and what it has of a pair")
    .addOption(pairOption().makeOptionMandatory())
    .addOption(atOption())
    .addOption(keyOption())
    .addOption(etcdOption())
    .addOption(caOption())
    .addOption(certOption())
    .addOption(certKeyOption())
    .addOption(userOption())
    .addOption(passwordOption())
    .action(async (options) => {
      const { showWitness } = await import("./witness.ts");
      finish(await showWitness(environment.io, { ...common(), ...options }));
    });
}

function addRegister(witness: Parent, { environment, common, finish }: Context): void {
  witness
    .command("register")
    .description("register a volume for both controllers, when they cannot do it themselves")
    .addOption(pairOption().makeOptionMandatory())
    .requiredOption("--volume <id>", "the volume's id")
    .requiredOption("--generation <id>", "the generation that the surviving copy has")
    .requiredOption("--reason <text>", "why; kept with the record")
    .option("--yes", "do not ask for confirmation")
    .addOption(atOption())
    .addOption(keyOption())
    .addOption(etcdOption())
    .addOption(caOption())
    .addOption(certOption())
    .addOption(certKeyOption())
    .addOption(userOption())
    .addOption(passwordOption())
    .action(async (options) => {
      const { registerVolume } = await import("./witness.ts");
      finish(await registerVolume(environment.io, { ...common(), ...options }));
    });
}
