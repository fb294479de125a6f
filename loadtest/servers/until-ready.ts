import type { ChildProcess } from "node:child_process";

/** Read the standard output of a starting server until it prints its address; the rest is discarded. */
export async function untilReady(server: ChildProcess): Promise<{ origin: string; output: string }> {
  let output = "";
  // The pipe must stay open: a server that cannot write its log would fail.
  for await (const chunk of server.stdout!.setEncoding("utf8").iterator({ destroyOnReturn: false })) {
    output += chunk;
    // The example after that line belongs to the output; a line of the log may follow at once.
    const ready = /ready at (\S+)\n\n[\s\S]+?\n\n/.exec(output);
    if (ready) {
      server.stdout!.resume();
      return { origin: ready[1]!, output };
    }
  }
  throw new Error(`the server did not start: ${output}`);
}
