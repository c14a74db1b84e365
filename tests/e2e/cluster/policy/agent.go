// Package policy enforces NetworkPolicies on one node of the test cluster, as a network plugin does on a real one. It watches the
// API server, renders nftables rules for the Pods of its node, and puts them into the node's network namespace in one transaction.
//
// It knows what NetworkPolicies of networking.k8s.io/v1 say, for IPv4: selectors of Pods and namespaces, ranges of addresses, ports by
// number, range and (for Pods that receive) name, both directions. While it is down, the rules stay as they are.
package policy

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

const (
	// gathering lets changes that come together be rendered together.
	gathering = 20 * time.Millisecond
	// retry is the wait after rules that the kernel did not take.
	retry = time.Second
)

// Main runs the agent until it is told to end, and returns the exit code.
func Main(arguments []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, arguments); err != nil {
		fmt.Fprintf(os.Stderr, "policy-agent: %v\n", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("policy-agent", flag.ContinueOnError)
	node := flags.String("node", "", "name of the node this runs on")
	host := flags.String("host", "", "address of the host of API server and nodes, which is let in everywhere")
	kubeconfig := flags.String("kubeconfig", "", "how to reach the API server")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *node == "" || *kubeconfig == "" {
		return errors.New("--node, --host and --kubeconfig are needed")
	}
	address, err := netip.ParseAddr(*host)
	if err != nil {
		return fmt.Errorf("--host: %w", err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return fmt.Errorf("reading %s: %w", *kubeconfig, err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making an API client: %w", err)
	}
	return follow(ctx, client, *node, address)
}

// follow renders and applies after every change, until it is told to end.
func follow(ctx context.Context, client kubernetes.Interface, node string, host netip.Addr) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	pods, namespaces := factory.Core().V1().Pods(), factory.Core().V1().Namespaces()
	policies := factory.Networking().V1().NetworkPolicies()
	changed := make(chan struct{}, 1)
	notice := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { notice() }, UpdateFunc: func(_, _ any) { notice() }, DeleteFunc: func(any) { notice() },
	}
	for _, informer := range []cache.SharedIndexInformer{pods.Informer(), namespaces.Informer(), policies.Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	notice()

	applied := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			time.Sleep(gathering)
		}
		scene := Scene{Node: node, Host: host}
		// The caches have no errors to give.
		scene.Pods, _ = pods.Lister().List(labels.Everything())
		scene.Namespaces, _ = namespaces.Lister().List(labels.Everything())
		scene.Policies, _ = policies.Lister().List(labels.Everything())
		rules := scene.Render()
		if rules == applied {
			continue
		}
		if err := apply(ctx, rules); err != nil {
			klog.ErrorS(err, "The rules were not taken; the old ones stay")
			time.AfterFunc(retry, notice)
			continue
		}
		applied = rules
		klog.InfoS("New rules", "closedPods", strings.Count(rules, closedMark))
	}
}

// apply replaces the whole table in one transaction.
func apply(ctx context.Context, rules string) error {
	command := exec.CommandContext(ctx, "nft", "-f", "-")
	command.Stdin = strings.NewReader(rules)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, output)
	}
	return nil
}
