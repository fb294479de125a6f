# The server on a CPU: docker build -t didi-serve . && docker run --rm -p 8080:8080 -v ./keys.jsonl:/keys.jsonl:ro -e DIDI_API_KEYS=/keys.jsonl didi-serve
# It listens on all addresses of its container, so it wants keys. Without, for this machine alone:
#   docker run --rm -p 127.0.0.1:8080:8080 -e DIDI_INSECURE=1 didi-serve
FROM node:22-bookworm-slim AS build
WORKDIR /app
# .npmrc keeps the install scripts of packages from running.
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY tsconfig.json tsconfig.build.json openapi.yaml ./
COPY src src
RUN npm run build && npm prune --omit=dev

FROM node:22-bookworm-slim
WORKDIR /app
ENV NODE_ENV=production DIDI_HOST=0.0.0.0
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY package.json openapi.yaml LICENSE ./
COPY models models
COPY web web
USER node
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["node", "-e", "fetch('http://127.0.0.1:' + (process.env.DIDI_PORT ?? 8080) + '/readyz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# Node reaps its own children; SIGTERM goes to it, and it drains.
ENTRYPOINT ["node", "dist/main.js"]
CMD ["serve"]
