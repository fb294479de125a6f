/**
 * `didi-serve completion`: scripts that complete the command line, made from commander's own tree.
 *
 * Each is a table of what may stand after which command; a shell that completes starts no process of ours.
 */

import type { Command, Option } from "commander";

export const SHELLS = ["bash", "zsh", "fish"] as const;

/** A shell that there is a script for. */
export type Shell = (typeof SHELLS)[number];

/** What a flag or an argument takes. */
type Value = { choices: readonly string[] } | { path: boolean };

interface Flag {
  /** `-h`, `--help`. */
  names: string[];
  description: string;
  /** Absent if it takes nothing. */
  value?: Value;
}

/** What may follow a command. */
interface Level {
  /** The command without the program's name: "", "serve", "model list". */
  path: string;
  commands: { name: string; description: string }[];
  flags: Flag[];
  /** Absent if it takes no argument. */
  argument?: Value;
}

/** Placeholders of files and folders. */
const PATHS = /folder|dir|file|program/;

function flagOf({ flags, short, long, description, argChoices, required, optional }: Option): Flag {
  const names = [short, long].filter((name) => name !== undefined);
  if (!required && !optional) return { names, description };
  return { names, description, value: argChoices ? { choices: argChoices } : { path: PATHS.test(flags) } };
}

function levelsOf(command: Command, path: string): Level[] {
  const help = command.createHelp();
  const commands = help.visibleCommands(command).filter((child) => command.commands.includes(child));
  const [argument] = command.registeredArguments;
  const level: Level = {
    path,
    commands: commands.map((child) => ({ name: child.name(), description: child.description() })),
    flags: help.visibleOptions(command).map(flagOf),
  };
  if (argument)
    level.argument = argument.argChoices
      ? { choices: argument.argChoices }
      : { path: PATHS.test(argument.name()) };
  return [level, ...commands.flatMap((child) => levelsOf(child, `${path} ${child.name()}`.trim()))];
}

const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
const wordsOf = (value: Value | undefined) => (value && "choices" in value ? [...value.choices] : []);
const isPath = (value: Value | undefined) => value !== undefined && "path" in value && value.path;

/** Branches of a shell's `case` on "command flag": what the value of the flag may be. */
function valueBranches(levels: Level[], words: (words: string[]) => string, files: string): string[] {
  return levels.flatMap(({ path, flags }) =>
    flags.flatMap(({ names, value }) => {
      if (!value) return [];
      const action = isPath(value) ? files : words(wordsOf(value));
      return names.map((name) => `    ${quote(`${path} ${name}`)}) ${action}; return ;;`);
    }),
  );
}

/** A `case` pattern of every command. */
const pathPattern = (levels: Level[]) =>
  levels
    .filter(({ path }) => path)
    .map(({ path }) => quote(path))
    .join("|");

/** Names of files may hold spaces, but not newlines. */
const BASH_FILES = `local IFS=$'\\n'; COMPREPLY+=($(compgen -f -- "$current"))`;

function bash(levels: Level[]): string {
  const reply = (words: string[]) => `COMPREPLY=($(compgen -W ${quote(words.join(" "))} -- "$current"))`;
  const branches = levels.map((level) => {
    const { path, commands, flags, argument } = level;
    const all = [
      ...commands.map(({ name }) => name),
      ...wordsOf(argument),
      ...flags.flatMap(({ names }) => names),
    ];
    const files = isPath(argument) ? `; ${BASH_FILES}` : "";
    return `    ${quote(path)}) ${reply(all)}${files} ;;`;
  });
  return `# bash completion of didi-serve
_didi_serve() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}" command="" longer i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    longer="\${command:+$command }\${COMP_WORDS[i]}"
    case "$longer" in
      ${pathPattern(levels)}) command="$longer" ;;
    esac
  done
  case "$command $previous" in
${valueBranches(levels, reply, BASH_FILES).join("\n")}
  esac
  case "$command" in
${branches.join("\n")}
  esac
}
complete -o filenames -F _didi_serve didi-serve
`;
}

function zsh(levels: Level[]): string {
  const add = (words: string[]) => (words.length > 0 ? `compadd -- ${words.map(quote).join(" ")}` : ":");
  const described = (name: string, description: string) =>
    quote(`${name.replaceAll(":", "\\:")}:${description}`);
  const branches = levels.map(({ path, commands, flags, argument }) => {
    const lines = [
      ...(commands.length > 0
        ? [
            `found=(${commands.map((child) => described(child.name, child.description)).join(" ")})`,
            "_describe command found",
          ]
        : []),
      ...(wordsOf(argument).length > 0 ? [add(wordsOf(argument))] : []),
      ...(isPath(argument) ? ["_files"] : []),
      `found=(${flags.flatMap(({ names, description }) => names.map((name) => described(name, description))).join(" ")})`,
      "_describe -o flag found",
    ];
    return `    ${quote(path)})\n      ${lines.join("\n      ")} ;;`;
  });
  return `#compdef didi-serve
_didi_serve() {
  local command="" longer i
  local -a found
  for ((i = 2; i < CURRENT; i++)); do
    longer="\${command:+$command }\${words[i]}"
    case "$longer" in
      ${pathPattern(levels)}) command="$longer" ;;
    esac
  done
  case "$command \${words[CURRENT-1]}" in
${valueBranches(levels, add, "_files").join("\n")}
  esac
  case "$command" in
${branches.join("\n")}
  esac
}
if [ "$funcstack[1]" = "_didi_serve" ]; then
  _didi_serve
else
  compdef _didi_serve didi-serve
fi
`;
}

function fish(levels: Level[]): string {
  const paths = levels.filter(({ path }) => path).map(({ path }) => quote(path));
  const lines = levels.flatMap(({ path, commands, flags, argument }) => {
    const at = `complete -c didi-serve -n ${quote(`__didi_serve_at ${quote(path)}`)}`;
    return [
      ...commands.map(({ name, description }) => `${at} -a ${quote(name)} -d ${quote(description)}`),
      ...(wordsOf(argument).length > 0 ? [`${at} -a ${quote(wordsOf(argument).join(" "))}`] : []),
      ...(isPath(argument) ? [`${at} -F`] : []),
      ...flags.map(({ names, description, value }) => {
        const named = names.map((name) =>
          name.startsWith("--") ? `-l ${quote(name.slice(2))}` : `-s ${quote(name.slice(1))}`,
        );
        const words = wordsOf(value).length > 0 ? `-x -a ${quote(wordsOf(value).join(" "))}` : "-x";
        const takes = value === undefined ? [] : [isPath(value) ? "-r -F" : words];
        return [at, ...named, ...takes, `-d ${quote(description)}`].join(" ");
      }),
    ];
  });
  return `# fish completion of didi-serve
function __didi_serve_at
  set -l command ''
  for word in (commandline -opc)[2..]
    set -l longer (string trim -- "$command $word")
    contains -- "$longer" ${paths.join(" ")}; and set command "$longer"
  end
  test "$command" = "$argv[1]"
end
complete -c didi-serve -f
${lines.join("\n")}
`;
}

/** The script for a shell, of everything under `program`. */
export function completionScript(program: Command, shell: Shell): string {
  return { bash, zsh, fish }[shell](levelsOf(program, ""));
}
