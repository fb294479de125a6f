/** The peer Transformers.js: the common library in Node, on the same onnxruntime, behind Fastify. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { PACKAGE_ROOT } from "../../../src/package-root.ts";
import type { SweepConfig } from "../../cli/flags.ts";
import type { SideInfo } from "../../report/types.ts";
import type { PeerSide } from "../side.ts";
import { autoregressiveSide, countTokens, STORIES_AR, startProgram } from "./autoregressive.ts";
import type { TransformersAnswer, TransformersSettings } from "./transformers-server.ts";

/** Start the peer. Reject if the package is not installed. */
export async function startTransformers(_: SweepConfig, info: SideInfo): Promise<PeerSide> {
  if (!existsSync(join(PACKAGE_ROOT, "node_modules", "@huggingface", "transformers")))
    throw new Error("@huggingface/transformers is not installed: npm run loadtest:peers");
  const script = join(PACKAGE_ROOT, "loadtest", "servers", "peers", "transformers-server.ts");
  const server = await startProgram(
    process.execPath,
    ["--import", "tsx", script, STORIES_AR],
    (output) => /^ready at (\S+)$/m.exec(output)?.[1],
  );
  const settings = (await (await fetch(`${server.origin}/settings`)).json()) as TransformersSettings;
  return autoregressiveSide({ ...info, settings }, server, {
    url: `${server.origin}/generate`,
    body: ({ shape, seed }) => ({ length: shape.length, seed }),
    read: ({ shape }, body) => countTokens((JSON.parse(body) as TransformersAnswer).tokens, shape.length),
  });
}
