#!/usr/bin/env bash
# From a fresh machine to a manifest that has run, rolled under load and gone: at most 15 minutes on two idle
# cores, of which 8 compile Kubernetes. As root on Debian 12, with Node, npm and Go 1.26:
#   deploy/kubernetes/test/short.sh
set -euo pipefail
cd "$(dirname "$0")/../../.."
packages=(podman runc mmdebstrap containerd etcd-server containernetworking-plugins iptables conntrack openssl)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
[ -d node_modules ] || npm ci
deploy/kubernetes/test/cluster.sh build
npm run cluster -- --short --build
printf '# %s s\n' $SECONDS
