/** Commands of the documents that no test runs, each with the reason. */

const NOT_RUN: [command: RegExp, reason: string][] = [
  [/^npm ci && npm start$/, "test/docs/roles runs it"],
  [/^npm ci && npm test$/, "runs this test"],
  [/^npm run cuda -- /, "fetches CUDA binaries from the network"],
  [/^npm (start|run device-check) -- .*--device cuda$/, "needs a GPU"],
  [/^npm run device-pack$/, "takes ten minutes; test/deploy/gpu.full.ts runs it"],
  [
    /(^|\/)hf download |didi-instruct-small|^npx didi-serve model convert --from \S+ --/,
    "needs the published checkpoint",
  ],
  [/^apt-get install /, "changes the machine; .ci/run installs the same packages"],
  [/^(useradd|systemctl) /, "needs root and systemd"],
  [/^kubectl /, "needs a cluster; loadtest/cluster applies the same manifests"],
  [/^npm run loadtest -- (--url \S+ )?--quick$/, "takes half a minute; .ci/run runs it"],
  [
    /^npm run loadtest -- (compare|gate) /,
    "needs the results of two runs; test/loadtest/sweep.full.ts runs it",
  ],
];

/** Return why a command is not run; undefined if it is. */
export const reasonNotToRun = (command: string): string | undefined =>
  NOT_RUN.find(([pattern]) => pattern.test(command))?.[1];

/** Return the exceptions that match no command. */
export const idleExceptions = (commands: readonly string[]): RegExp[] =>
  NOT_RUN.map(([pattern]) => pattern).filter((pattern) => !commands.some((command) => pattern.test(command)));
