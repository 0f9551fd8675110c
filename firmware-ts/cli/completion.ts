/**
 * Completion for bash, made from the command tree itself, so that it cannot fall behind it. The script needs nothing but bash: it finds
 * the command that the words so far name, and offers what that one takes. Only names of virtual servers are asked of the daemon.
 */
import type { CommandUnknownOpts, Option } from "@commander-js/extra-typings";

/** Words to choose from, or a kind of thing. */
type Offer = readonly string[] | "files" | "virtualServers";

/** Arguments of which there is something to choose from, by their names in the help. */
const kinds: Readonly<Record<string, Offer>> = { file: "files", name: "virtualServers" };

/** One command as a shell sees it: its path ("/vserver/show"), and what may follow. */
interface Place {
  readonly path: string;
  readonly commands: readonly string[];
  readonly options: readonly Option[];
  readonly arguments: readonly Offer[];
}

/** The script; `source` it, or put it where bash looks for completions. */
export function bashCompletion(program: CommandUnknownOpts): string {
  const name = program.name();
  const places = placesOf(program, "", optionsOf(program));
  const all = new Map(places.flatMap(({ options }) => options).map((each) => [each.flags, each]));
  const options = [...all.values()];
  const valued = options.filter((option) => option.required);
  const optional = options.filter((option) => option.optional);
  const paths = places.flatMap(({ path }) => (path === "" ? [] : [path]));
  return `# Completion of ${name} for bash: source it, or put it into /etc/bash_completion.d.
_${name}_vservers() {
  ${name} -o json vserver list 2>/dev/null | sed -n 's/^{"name":"\\([^"]*\\)".*/\\1/p'
}

_${name}_offer() {
  mapfile -t COMPREPLY < <(compgen "$@" -- "\${COMP_WORDS[COMP_CWORD]}")
}

_${name}() {
  local word="\${COMP_WORDS[COMP_CWORD]}" before="\${COMP_WORDS[COMP_CWORD-1]}" at="" taken=0 words="" i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "\${COMP_WORDS[i]}" in
      ${patternOf(valued)}) i=$((i + 1)) ;;
      ${patternOf(optional)}) [[ \${COMP_WORDS[i+1]} != [0-9]* ]] || i=$((i + 1)) ;;
      -*) ;;
      *)
        case "$at/\${COMP_WORDS[i]}" in
          ${paths.join(" | ")})
            at="$at/\${COMP_WORDS[i]}" ;;
          *) taken=$((taken + 1)) ;;
        esac
        ;;
    esac
  done
  case "$before" in
${valued.map((option) => afterOption(name, option)).join("\n")}
  esac
  [[ $word == -* ]] || case "$at:$taken" in
${places.flatMap((place) => wantedArguments(name, place)).join("\n")}
  esac
  case "$at" in
${places.map(wordsAt).join("\n")}
  esac
  _${name}_offer -W "$words"
}
complete -F _${name} ${name}
`;
}

/** What follows an option that takes a value; for free text nothing is offered. */
function afterOption(name: string, option: Option): string {
  const kind = /path|file/.test(option.flags) ? "files" : undefined;
  return `    ${patternOf([option])}) ${offer(name, option.argChoices ?? kind)}return ;;`;
}

/** Before an option is begun, an argument that is missing is what is wanted. */
function wantedArguments(name: string, { path, arguments: list }: Place): string[] {
  return list.map((wanted, index) => `    ${path}:${index}) ${offer(name, wanted)}return ;;`);
}

function offer(name: string, what: Offer | undefined): string {
  if (what === undefined || what.length === 0) return "";
  if (what === "files") return `compopt -o filenames 2>/dev/null; _${name}_offer -f; `;
  const words = what === "virtualServers" ? `$(_${name}_vservers)` : what.join(" ");
  return `_${name}_offer -W "${words}"; `;
}

function placesOf(
  command: CommandUnknownOpts,
  path: string,
  everywhere: readonly Option[],
): readonly Place[] {
  const own = optionsOf(command);
  const more = everywhere.filter(
    ({ flags, long }) => long !== "--version" && own.every((each) => each.flags !== flags),
  );
  const place: Place = {
    path,
    // With the help command, which is in no other list.
    commands: command
      .createHelp()
      .visibleCommands(command)
      .map((each) => each.name()),
    options: [...own, ...more],
    arguments: command.registeredArguments.map(
      (argument) => argument.argChoices ?? kinds[argument.name()] ?? [],
    ),
  };
  const below = command.commands.flatMap((each) =>
    placesOf(each, `${path}/${each.name()}`, everywhere),
  );
  return [place, ...below];
}

function optionsOf(command: CommandUnknownOpts): Option[] {
  return command.createHelp().visibleOptions(command) as Option[];
}

function namesOf({ short, long }: Option): string[] {
  return [short, long].filter((each) => each !== undefined);
}

function patternOf(options: readonly Option[]): string {
  return options.flatMap(namesOf).join(" | ");
}

function wordsAt({ path, commands, options }: Place): string {
  const words = [...commands, ...options.flatMap(namesOf)].join(" ");
  return `    ${path === "" ? '""' : path}) words="${words}" ;;`;
}
