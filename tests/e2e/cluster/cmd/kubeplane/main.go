// Command kubeplane is every Kubernetes program of the test cluster in one binary, and the cluster's storage driver and policy agent with
// them: they share almost all of their code, so one link and one file serve for all.
//
//	kubeplane kube-apiserver | kube-controller-manager | kube-scheduler | kubelet | kube-proxy | csi-driver | policy-agent  [flags]
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // for the metrics that the programs serve
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"bizra.io/cluster/csi"
	"bizra.io/cluster/policy"
)

func main() {
	if len(os.Args) < 2 {
		fail("which program? ")
	}
	name := os.Args[1]
	// Each program finds its own name and flags where it would as a binary of its own.
	os.Args = os.Args[1:]
	var command *cobra.Command
	switch name {
	case "csi-driver":
		os.Exit(csi.Main(os.Args[1:]))
	case "policy-agent":
		os.Exit(policy.Main(os.Args[1:]))
	case "kube-apiserver":
		command = apiserver.NewAPIServerCommand()
	case "kube-controller-manager":
		command = controllermanager.NewControllerManagerCommand()
	case "kube-scheduler":
		command = scheduler.NewSchedulerCommand()
	case "kube-proxy":
		command = proxy.NewProxyCommand()
	case "kubelet":
		command = kubelet.NewKubeletCommand(context.Background())
	default:
		fail(fmt.Sprintf("there is no %q. ", name))
	}
	os.Exit(cli.Run(command))
}

func fail(reason string) {
	fmt.Fprintf(os.Stderr, "kubeplane: %sUse kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy, csi-driver or policy-agent.\n", reason)
	os.Exit(2)
}
