package main

import (
	"context"
	"flag"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

// queue is the number of the kernel's queue of packets that a policy decides about (cluster.sh names it too).
const queue = 100

// enforcePolicies enforces network policies on this machine until SIGTERM. The program of
// kube-network-policies runs in a pod only; this one takes a kubeconfig.
func enforcePolicies() error {
	path := flag.String("kubeconfig", "", "file of the API server and its credentials")
	node := flag.String("hostname-override", "", "name of the node")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *path)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	objects := informers.NewSharedInformerFactory(client, 0)
	controller, err := networkpolicy.NewController(client, objects.Networking().V1().NetworkPolicies(),
		objects.Core().V1().Namespaces(), objects.Core().V1().Pods(), nil, nil, nil, nil,
		networkpolicy.Config{NodeName: *node, QueueID: queue})
	if err != nil {
		return err
	}
	objects.Start(ctx.Done())
	return controller.Run(ctx)
}
