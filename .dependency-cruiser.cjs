// The rooms of the code and the one way in which they may import each other: `npm run rooms`.

/** Rooms of src/ from the top down: each may import from those after it. */
const ROOMS = ["cli", "server", "quota", "redis", "engine", "runtime", "model", "diffusion"];

const oneWay = ROOMS.slice(1).map((room, index) => ({
  name: `${room}-imports-downwards`,
  severity: "error",
  comment: `src/${room} may not import from a room above it: ${ROOMS.slice(0, index + 1).join(", ")}`,
  from: { path: `^src/${room}/` },
  to: { path: `^src/(${ROOMS.slice(0, index + 1).join("|")})/` },
}));

module.exports = {
  forbidden: [
    { name: "no-circles", severity: "error", from: {}, to: { circular: true } },
    {
      name: "product-never-imports-tests",
      severity: "error",
      from: { path: "^src/" },
      to: { path: "^(test|loadtest|docs|deploy)/" },
    },
    {
      name: "the-client-stands-alone",
      severity: "error",
      comment: "src/client runs in browsers: of the rest it may import types of the contract only",
      from: { path: "^src/client/" },
      to: { path: "^src/(?!client/)", pathNot: "^src/server/(api-types|openapi)\\.ts$" },
    },
    {
      name: "diffusion-is-pure",
      severity: "error",
      comment: "src/diffusion is pure functions: no packages, no modules of Node",
      from: { path: "^src/diffusion/" },
      to: { pathNot: "^src/(diffusion/|errors\\.ts)" },
    },
    {
      name: "resolvable",
      comment:
        "src/didi-serve.js imports what the build makes; test/clients/clients.mjs has packages of its own",
      severity: "error",
      from: { pathNot: "^test/clients/clients\\.mjs$" },
      to: { couldNotResolve: true, pathNot: "dist/main\\.js$" },
    },
    ...oneWay,
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "types", "default"] },
  },
};
