#!/usr/bin/env bash
# A Kubernetes cluster of two nodes on this machine, to try the manifests on.
#   cluster.sh build         compile Kubernetes from its Go modules, once: 8 minutes on two idle cores, 140 MB
#   cluster.sh up            start etcd, two containerds and Kubernetes; ready after a few seconds
#   cluster.sh load IMAGE    give both nodes an image of podman under the name that the manifests use
#   cluster.sh wrap PROGRAM  make an image of a program of this machine with its libraries, and load it
#   cluster.sh down          stop everything and remove it, the build apart
#   cluster.sh env           print the variables for kubectl
# Needs root, Linux, Go 1.26 for `build`, and: apt-get install podman runc containerd etcd-server \
#   containernetworking-plugins iptables conntrack
# Both nodes share one kernel and one network: pods of both have addresses of 10.244.0.0/24 behind one bridge.
# Services have addresses of 10.96.0.0/24; there is no DNS. The API listens on the loopback interface, the
# kubelets and the metrics API on the bridge. Network policies are enforced (kube-network-policies).
# The metrics API reads a Prometheus on port 19090 of the loopback interface, which whoever needs it starts.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
home=${XDG_CACHE_HOME:-$HOME/.cache}/didi-serve/cluster
bin=$home/bin run=$home/run version=1.36.3 gateway=10.244.0.1
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

build() {
  command -v go >/dev/null || fail "go is missing"
  mkdir -p "$bin"
  local package=k8s.io/component-base/version
  local flags="-s -w -X $package.gitVersion=v$version -X $package.gitMajor=1 -X $package.gitMinor=36"
  (cd "$here" && CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$bin/kube" .)
  for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl network-policies \
    metrics-adapter; do
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

# Write the configuration of a node's containerd and kubelet, and start them.
start_node() { # NAME
  local node=$1 number=${1#node} group
  # Groups of its own: a kubelet removes those below its root that it does not know. Pods come before other
  # programs of the machine, so that they get what their limits allow.
  for group in /sys/fs/cgroup/*/; do mkdir -p "$group/didi-$node" 2>/dev/null || true; done
  for group in cpuset.cpus cpuset.mems; do
    [ ! -f /sys/fs/cgroup/cpuset/$group ] ||
      cat /sys/fs/cgroup/cpuset/$group >"/sys/fs/cgroup/cpuset/didi-$node/$group"
  done
  [ ! -d "/sys/fs/cgroup/cpu/didi-$node" ] || echo 100000 >"/sys/fs/cgroup/cpu/didi-$node/cpu.shares"
  mkdir -p "$run/$node"
  cat >"$run/$node/containerd.toml" <<END
version = 2
root = "$run/$node/containerd"
state = "$run/$node/containerd-state"
[grpc]
  address = "$run/$node/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "$here/oci"
END
  cat >"$run/$node/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $gateway
port: $((10249 + number))
healthzPort: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /didi-$node
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://$run/$node/containerd.sock
localStorageCapacityIsolation: false
evictionHard: {memory.available: "100Mi"}
END
  start $node-containerd containerd --config "$run/$node/containerd.toml"
  until_ 60 ctr --address "$run/$node/containerd.sock" version
  start $node-kubelet kubelet --config="$run/$node/kubelet.yaml" --kubeconfig="$KUBECONFIG" \
    --root-dir="$run/$node/kubelet" --cert-dir="$run/$node/pki" --hostname-override=$node --node-ip=$gateway
}

# Add (-I) or remove (-D) the rules that let the policies decide about new connections of pods.
queue() { # ACTION
  local chain
  for chain in FORWARD INPUT; do
    iptables "$1" $chain -s 10.244.0.0/24 -m conntrack --ctstate NEW -j NFQUEUE --queue-num 100 --queue-bypass
  done
}

# Register the metrics API that the autoscaler asks, served by this machine.
register_metrics() {
  start metrics metrics-adapter --lister-kubeconfig="$KUBECONFIG" --bind-address=$gateway --secure-port=6444 \
    --cert-dir="$run/certs" --authentication-kubeconfig="$KUBECONFIG" --authentication-skip-lookup \
    --authorization-kubeconfig="$KUBECONFIG" --prometheus-url=http://127.0.0.1:19090 \
    --config="$here/../prometheus-adapter.yaml"
  kubectl apply -f - >/dev/null <<END
{apiVersion: v1, kind: Service, metadata: {name: metrics, namespace: kube-system}, spec: {ports: [{port: 443}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: metrics, namespace: kube-system, labels: {kubernetes.io/service-name: metrics}}
addressType: IPv4
ports: [{port: 6444}]
endpoints: [{addresses: [$gateway]}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta2.custom.metrics.k8s.io}
spec:
  group: custom.metrics.k8s.io
  version: v1beta2
  insecureSkipTLSVerify: true
  groupPriorityMinimum: 100
  versionPriority: 100
  service: {name: metrics, namespace: kube-system}
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
  ip link add didi0 type bridge
  ip address add $gateway/24 dev didi0
  ip link set didi0 up
  local client=http://127.0.0.1:12379 peer=http://127.0.0.1:12380
  start etcd etcd --data-dir "$run/etcd" --listen-client-urls $client --advertise-client-urls $client \
    --listen-peer-urls $peer --initial-advertise-peer-urls $peer --initial-cluster default=$peer
  start apiserver kube-apiserver --etcd-servers=$client --bind-address=127.0.0.1 --secure-port=6443 \
    --advertise-address=127.0.0.1 --cert-dir="$run/certs" --service-cluster-ip-range=10.96.0.0/24 \
    --authorization-mode=AlwaysAllow --token-auth-file="$run/tokens.csv" --allow-privileged=true \
    --service-account-issuer=https://kubernetes.default.svc --service-account-signing-key-file="$run/sa.key" \
    --service-account-key-file="$run/sa.key" --endpoint-reconciler-type=none \
    --enable-aggregator-routing=true --kubelet-preferred-address-types=InternalIP
  until_ 120 kubectl get --raw /readyz
  start controllers kube-controller-manager --kubeconfig="$KUBECONFIG" --bind-address=127.0.0.1 \
    --service-account-private-key-file="$run/sa.key" --leader-elect=false
  start scheduler kube-scheduler --kubeconfig="$KUBECONFIG" --bind-address=127.0.0.1 --leader-elect=false
  printf 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n' |
    podman build --quiet --isolation chroot -t localhost/pause:1 -f - "$home/pause" >/dev/null
  start_node node1
  start_node node2
  load localhost/pause:1
  start proxy kube-proxy --config="$run/proxy.yaml"
  # The program queues packets with nftables; without CONFIG_NFT_QUEUE in the kernel, these rules do.
  queue -I
  start policies network-policies --kubeconfig="$KUBECONFIG" --hostname-override=node1
  register_metrics
  until_ 120 sh -c '[ "$(kubectl get nodes | grep -c " Ready")" = 2 ]'
  kubectl get nodes
}

import_image() { # NODE ARCHIVE IMAGE
  local images="ctr --address $run/$1/containerd.sock --namespace k8s.io images"
  $images import "$2" >/dev/null
  # The manifests name images without a registry.
  case $3 in localhost/pause:*) ;; *) $images tag --force "$3" "docker.io/library/${3##*/}" >/dev/null ;; esac
}
load() { # IMAGE
  local archive=$run/image.tar
  rm -f "$archive"
  podman save --quiet --format docker-archive -o "$archive" "$1"
  import_image node1 "$archive" "$1" &
  local other=$!
  import_image node2 "$archive" "$1"
  wait $other
  rm -f "$archive"
}

wrap() { # PROGRAM
  local path work
  path=$(command -v "$1") || fail "$1 is missing"
  work=$(mktemp -d)
  # shellcheck disable=SC2046 # One word a file.
  cp --parents -L "$path" $(ldd "$path" | grep -o '/[^ ]*') "$work"
  printf 'FROM scratch\nCOPY . /\nENTRYPOINT ["%s"]\n' "$path" |
    podman build --quiet --isolation chroot -t "localhost/$1:1" -f - "$work" >/dev/null
  rm -rf "$work"
  load "localhost/$1:1"
}

down() {
  if [ -f "$run/apiserver.pid" ]; then
    timeout 60 kubectl delete deployments,replicasets,pods --all --all-namespaces --force --grace-period=0 \
      >/dev/null 2>&1 || true
    sleep 2
  fi
  for name in metrics policies proxy node1-kubelet node2-kubelet scheduler controllers apiserver \
    node1-containerd node2-containerd etcd; do
    stop $name
  done
  queue -D 2>/dev/null || true
  [ ! -x "$bin/kube-proxy" ] || kube-proxy --cleanup >/dev/null 2>&1 || true
  sleep 1
  local table chain
  for chain in INPUT OUTPUT; do iptables -D $chain -j KUBE-FIREWALL 2>/dev/null || true; done
  for table in mangle nat filter; do
    for chain in $(iptables -t $table -S | sed -n 's/^-N \(KUBE-.*\)/\1/p'); do
      iptables -t $table -F "$chain" && iptables -t $table -X "$chain" 2>/dev/null || true
    done
  done
  pgrep -f "containerd-shim-runc-v2 .*$run/node[12]/containerd.sock" | xargs -r kill -9 2>/dev/null || true
  ip link del didi0 2>/dev/null || true
  rm -f /etc/cni/net.d/10-didi-test.conflist
  mount | awk -v run="$run" 'index($3, run) == 1 {print $3}' | sort -r |
    xargs -r umount -l 2>/dev/null || true
  find /sys/fs/cgroup/*/didi-node[12] -depth -type d -exec rmdir {} + 2>/dev/null || true
  rm -rf "$run"
}

case ${1:-} in
  build | up | down) "$1" ;;
  load | wrap) "$1" "${2:?name}" ;;
  env) echo "export KUBECONFIG=$KUBECONFIG PATH=$bin:\$PATH" ;;
  *) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;;
esac
