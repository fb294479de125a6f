/** Flags of small scripts: what is wrong with them is one line, not a stack trace. */

import { type ParseArgsConfig, parseArgs } from "node:util";

type Options = NonNullable<ParseArgsConfig["options"]>;
type Values<T extends Options> = ReturnType<typeof parseArgs<{ options: T }>>["values"];

/**
 * Return the flags of this process and what stands beside them. Print `usage`, which begins with the command,
 * and end with 0 for --help. Print one line and end with 2 for a flag that there is not.
 */
export function readArguments<const T extends Options>(
  usage: string,
  options: T,
  allowPositionals = true,
): { values: Values<T>; positionals: string[] } {
  try {
    const known = { ...options, help: { type: "boolean", short: "h" } } satisfies Options;
    const { values, positionals } = parseArgs({ allowPositionals, options: known });
    if ((values as { help?: boolean }).help) {
      console.log(usage);
      process.exit(0);
    }
    return { values: values as Values<T>, positionals };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    const [name] = usage.split(/ -- |\n/);
    console.error(`${name}: ${error.message.split(". ")[0]}; --help shows what there is`);
    process.exit(2);
  }
}

/** The same of a script that takes flags alone. */
export const readFlags = <const T extends Options>(usage: string, options: T): Values<T> =>
  readArguments(usage, options, false).values;
