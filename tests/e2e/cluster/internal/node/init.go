// Package node runs one Kubernetes node: a set of namespaces of its own (mounts, host name, IPC, network, processes) on the
// machine's file system. Pid 1 of the node is this program again, as `cluster node-init`: it prepares the mounts and the network,
// starts the node's daemons, starts them again when they end, and reaps orphans.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"bizra.io/cluster/internal/apiclient"
	"bizra.io/cluster/internal/layout"
	"bizra.io/cluster/internal/network"
)

// InitCommand is the hidden sub-command that a node's pid 1 runs.
const InitCommand = "node-init"

// startSignal tells pid 1 that its link and control groups are in place. A closed pipe without it means that whoever started the
// node has died, and the node ends.
const startSignal = "start\n"

// apiServerPatience bounds how long a kubelet is held back while there is no API server: it would only use processor time that the
// API server needs for its own start.
const apiServerPatience = time.Minute

// Init is pid 1 of a node; it returns only if the node cannot be set up.
func Init(arguments []string) error {
	if os.Getpid() != 1 || len(arguments) != 3 {
		return errors.New("this command is pid 1 of a node and is started by `cluster up`")
	}
	index, err := strconv.Atoi(arguments[2])
	if err != nil {
		return fmt.Errorf("node index: %w", err)
	}
	node := layout.Layout{Dir: arguments[0], Bin: arguments[1]}.Node(index)
	signal, err := io.ReadAll(os.NewFile(3, "start"))
	if err != nil || string(signal) != startSignal {
		return errors.New("the program that started this node ended before the node was connected")
	}
	state, err := node.Layout.Load()
	if err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(node.Name())); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	if err := mount(node); err != nil {
		return err
	}
	if err := network.ConfigureNode(index, state.Addresses); err != nil {
		return err
	}
	removeStaleSockets()
	fmt.Printf("%s is set up\n", node.Name())
	daemons := newSupervisor(node)
	go startDaemons(node, state, daemons)
	daemons.reap()
	return nil
}

// mount gives the node its own view of the folders in which every kubelet and containerd keep their things, so that all nodes can
// use the usual paths. All of it vanishes with the namespace.
func mount(node layout.Node) error {
	// Whatever the machine's propagation is, nothing mounted here may be seen outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("separating the node's mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	for _, folder := range []string{"/run/containerd", "/run/netns", "/run/lock"} {
		if err := os.MkdirAll(folder, 0o711); err != nil {
			return err
		}
	}
	for target, own := range map[string]string{
		"/var/log": node.Path("var-log"), "/var/lib/kubelet": node.Path("kubelet"), "/var/lib/cni": node.Path("var-lib-cni"),
	} {
		if err := os.MkdirAll(own, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(own, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("putting %s over %s: %w", own, target, err)
		}
	}
	// The kubelet's mounts must reach the containers.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("sharing the node's mounts with its containers: %w", err)
	}
	return nil
}

// removeStaleSockets clears what a node that lost its power left behind: the kubelet would wait for plugins that are not there.
func removeStaleSockets() {
	for _, pattern := range []string{"/var/lib/kubelet/plugins_registry/*", "/var/lib/kubelet/plugins/*/*.sock"} {
		stale, _ := filepath.Glob(pattern)
		for _, socket := range stale {
			_ = os.Remove(socket)
		}
	}
}

func startDaemons(node layout.Node, state layout.State, daemons *supervisor) {
	kubeplane := node.Layout.Binary("kubeplane")
	daemons.start("containerd", node.Layout.Binary("containerd"), "--config", node.Path("containerd.toml"))
	waitForSocket(layout.ContainerdSocket)
	waitForAPIServer(node, state)
	daemons.start("kubelet", kubeplane, "kubelet", "--config="+node.Path("kubelet.yaml"),
		"--kubeconfig="+node.Layout.Path(node.Name()+".kubeconfig"), "--hostname-override="+node.Name(),
		"--node-ip="+state.Addresses.Node(node.Index).String(), "--root-dir=/var/lib/kubelet",
		"--node-labels=topology.kubernetes.io/zone="+node.Zone()+",topology.kubernetes.io/region=bizra", "--v=2")
	daemons.start("kube-proxy", kubeplane, "kube-proxy", "--kubeconfig="+node.Layout.Path("proxy.kubeconfig"),
		"--proxy-mode=nftables", "--cluster-cidr="+state.Addresses.Pods.String(), "--hostname-override="+node.Name(),
		// The connection-tracking limits belong to the whole machine; leave them as they are.
		"--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0")
	daemons.start("csi-driver", kubeplane, "csi-driver", "--node="+node.Name(), "--volumes="+node.Volumes(),
		"--kubeconfig="+node.Layout.Path("storage.kubeconfig"))
	daemons.start("policy-agent", kubeplane, "policy-agent", "--node="+node.Name(), "--host="+state.Addresses.Bridge().String(),
		"--kubeconfig="+node.Layout.Path("policy.kubeconfig"))
}

// Daemons are the programs that pid 1 of a node keeps running.
var Daemons = []string{"containerd", "kubelet", "kube-proxy", "csi-driver", "policy-agent"}

func waitForSocket(path string) {
	for {
		connection, err := net.Dial("unix", path)
		if err == nil {
			connection.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func waitForAPIServer(node layout.Node, state layout.State) {
	ctx, cancel := context.WithTimeout(context.Background(), apiServerPatience)
	defer cancel()
	client, err := apiclient.ForNode(node, state.Addresses)
	for err == nil && ctx.Err() == nil {
		if client.Ready(ctx) == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	fmt.Printf("going on without an API server: %v\n", errors.Join(err, ctx.Err()))
}
