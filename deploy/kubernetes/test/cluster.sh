#!/usr/bin/env bash
# A Kubernetes cluster of one node on this machine, to try the manifests on.
#   cluster.sh build        compile Kubernetes from its Go modules, once: 8 minutes on two idle cores, 127 MB
#   cluster.sh up           start etcd, containerd and Kubernetes; the node is ready after a few seconds
#   cluster.sh load IMAGE   give the node an image of podman under the name that the manifests use
#   cluster.sh down         stop everything and remove it, the build apart
#   cluster.sh env          print the variables for kubectl
# Needs root, Linux, Go 1.26 for `build`, and: apt-get install podman runc containerd etcd-server \
#   containernetworking-plugins iptables conntrack
# The API listens on the loopback interface. Pods have addresses of 10.244.0.0/24, services of 10.96.0.0/24;
# there is no DNS, and nothing enforces network policies.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
home=${XDG_CACHE_HOME:-$HOME/.cache}/didi-serve/cluster
bin=$home/bin run=$home/run version=1.36.3
export KUBECONFIG=$run/kubeconfig PATH=$bin:$PATH

fail() { echo "cluster.sh: $*" >&2; exit 1; }
start() { # NAME COMMAND ...
  local name=$1
  shift
  setsid "$@" >"$run/$name.log" 2>&1 </dev/null &
  echo $! >"$run/$name.pid"
}
stop() { # NAME
  [ -f "$run/$1.pid" ] || return 0
  kill "$(cat "$run/$1.pid")" 2>/dev/null || true
  rm -f "$run/$1.pid"
}
until_() { # SECONDS COMMAND ...
  local last=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $last ] || fail "does not become ready: $* (logs in $run)"
    sleep 0.5
  done
}
images() { ctr --address "$run/containerd.sock" --namespace k8s.io images "$@"; }

build() {
  command -v go >/dev/null || fail "go is missing"
  mkdir -p "$bin"
  local package=k8s.io/component-base/version
  local flags="-s -w -X $package.gitVersion=v$version -X $package.gitMajor=1 -X $package.gitMinor=36"
  (cd "$here" && CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$bin/kube" .)
  for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
    ln -sf kube "$bin/$name"
  done
  (cd "$here/pause" && CGO_ENABLED=0 go build -ldflags '-s -w' -o "$home/pause/pause" main.go)
}

configure() {
  [ -f "$run/sa.key" ] || openssl genrsa -out "$run/sa.key" 2048 2>/dev/null
  local token
  token=$(openssl rand -hex 16)
  echo "$token,admin,admin,\"system:masters\"" >"$run/tokens.csv"
  cat >"$KUBECONFIG" <<END
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:6443", insecure-skip-tls-verify: true}}]
users: [{name: admin, user: {token: $token}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
END
  cat >/etc/cni/net.d/10-didi-test.conflist <<END
{"cniVersion": "0.4.0", "name": "test", "plugins": [
  {"type": "bridge", "bridge": "didi0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
END
  cat >"$run/containerd.toml" <<END
version = 2
root = "$run/containerd"
state = "$run/containerd-state"
[grpc]
  address = "$run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "$here/oci"
END
  cat >"$run/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
healthzBindAddress: 127.0.0.1
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://$run/containerd.sock
localStorageCapacityIsolation: false
evictionHard: {memory.available: "100Mi"}
END
  # Zeros leave the limits of connection tracking as they are: a container may not set them.
  cat >"$run/proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: 10.244.0.0/24
hostnameOverride: node1
clientConnection: {kubeconfig: $KUBECONFIG}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
END
}

up() {
  [ -x "$bin/kube" ] || fail "run \`$0 build\` first"
  for program in containerd ctr etcd podman runc iptables openssl; do
    command -v "$program" >/dev/null || fail "$program is missing (see the head of this file)"
  done
  [ ! -d "$run" ] || fail "it is up; or run \`$0 down\`"
  mkdir -p "$run/certs" /etc/cni/net.d
  configure
  local client=http://127.0.0.1:12379 peer=http://127.0.0.1:12380
  start etcd etcd --data-dir "$run/etcd" --listen-client-urls $client --advertise-client-urls $client \
    --listen-peer-urls $peer --initial-advertise-peer-urls $peer --initial-cluster default=$peer
  start containerd containerd --config "$run/containerd.toml"
  start apiserver kube-apiserver --etcd-servers=$client --bind-address=127.0.0.1 --secure-port=6443 \
    --advertise-address=127.0.0.1 --cert-dir="$run/certs" --service-cluster-ip-range=10.96.0.0/24 \
    --authorization-mode=AlwaysAllow --token-auth-file="$run/tokens.csv" --allow-privileged=true \
    --service-account-issuer=https://kubernetes.default.svc --service-account-signing-key-file="$run/sa.key" \
    --service-account-key-file="$run/sa.key" --endpoint-reconciler-type=none
  until_ 120 kubectl get --raw /readyz
  start controllers kube-controller-manager --kubeconfig="$KUBECONFIG" --bind-address=127.0.0.1 \
    --service-account-private-key-file="$run/sa.key" --leader-elect=false
  start scheduler kube-scheduler --kubeconfig="$KUBECONFIG" --bind-address=127.0.0.1 --leader-elect=false
  printf 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n' |
    podman build --quiet --isolation chroot -t localhost/pause:1 -f - "$home/pause" >/dev/null
  load localhost/pause:1
  start kubelet kubelet --config="$run/kubelet.yaml" --kubeconfig="$KUBECONFIG" --root-dir="$run/kubelet" \
    --cert-dir="$run/kubelet/pki" --hostname-override=node1
  start proxy kube-proxy --config="$run/proxy.yaml"
  until_ 120 sh -c 'kubectl get nodes | grep -q " Ready"'
  kubectl get nodes
}

load() { # IMAGE
  podman save --quiet --format docker-archive "$1" | images import - >/dev/null
  # The manifests name images without a registry.
  local name=docker.io/library/${1##*/}
  case $1 in localhost/didi-serve:*) images tag --force "$1" "$name" >/dev/null ;; esac
}

down() {
  if [ -f "$run/apiserver.pid" ]; then
    timeout 60 kubectl delete deployments,replicasets,pods --all --all-namespaces --force --grace-period=0 \
      >/dev/null 2>&1 || true
    sleep 2
  fi
  for name in proxy kubelet scheduler controllers apiserver containerd etcd; do stop $name; done
  [ ! -x "$bin/kube-proxy" ] || kube-proxy --cleanup >/dev/null 2>&1 || true
  sleep 1
  local table chain
  for chain in INPUT OUTPUT; do iptables -D $chain -j KUBE-FIREWALL 2>/dev/null || true; done
  for table in mangle nat filter; do
    for chain in $(iptables -t $table -S | sed -n 's/^-N \(KUBE-.*\)/\1/p'); do
      iptables -t $table -F "$chain" && iptables -t $table -X "$chain" 2>/dev/null || true
    done
  done
  pgrep -f "containerd-shim-runc-v2 .*$run/containerd.sock" | xargs -r kill -9 2>/dev/null || true
  ip link del didi0 2>/dev/null || true
  rm -f /etc/cni/net.d/10-didi-test.conflist
  mount | awk -v run="$run" 'index($3, run) == 1 {print $3}' | sort -r |
    xargs -r umount -l 2>/dev/null || true
  rm -rf "$run"
}

case ${1:-} in
  build | up | down) "$1" ;;
  load) load "${2:?image}" ;;
  env) echo "export KUBECONFIG=$KUBECONFIG PATH=$bin:\$PATH" ;;
  *) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;;
esac
