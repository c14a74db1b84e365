// Package layout names everything the test cluster puts on a machine: folders, links, cgroups and addresses. It does no work of
// its own, so that starting, healing and removing the cluster cannot disagree about where a thing is.
package layout

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

const (
	// NodeCount is the number of Kubernetes nodes: four hard-spread validators and a spare.
	NodeCount = 5
	// Bridge is the link in the root network namespace that all nodes are plugged into.
	Bridge = "bizra-br0"
	// LinkPrefix starts the name of every link the cluster makes in the root network namespace.
	LinkPrefix = "bizra-"
	// Cgroup is the folder below every cgroup hierarchy that holds the cluster's processes.
	Cgroup = "bizra"
	// InstanceVariable marks the environment of every process of a cluster with the cluster's random id.
	InstanceVariable = "BIZRA_CLUSTER_INSTANCE"
	// ContainerdSocket is containerd's address inside a node.
	ContainerdSocket = "/run/containerd/containerd.sock"
	// PauseImage is the sandbox image of every Pod.
	PauseImage = "localhost/pause:latest"
	// StorageDriver is the name of the CSI driver.
	StorageDriver = "volumes.bizra.test"
	// APIServerPort is where the API server listens on the bridge address.
	APIServerPort = 6443
)

// Hidden lists the folders that a node covers with its own; nothing the cluster needs may lie below them.
var Hidden = []string{"/run", "/var/run", "/var/log", "/var/lib/kubelet", "/var/lib/cni", "/proc"}

// Layout is the state folder and the folder of binaries of one cluster.
type Layout struct {
	// Dir holds all state; it is removed by `down`.
	Dir string
	// Bin holds the binaries made by build.sh.
	Bin string
}

// FromEnvironment reads BIZRA_CLUSTER_DIR and BIZRA_CLUSTER_BIN; the defaults are the user's cache folder and the folder of the
// running program.
func FromEnvironment() (Layout, error) {
	dir, bin := os.Getenv("BIZRA_CLUSTER_DIR"), os.Getenv("BIZRA_CLUSTER_BIN")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return Layout{}, fmt.Errorf("no place for the cluster's state: set HOME or BIZRA_CLUSTER_DIR: %w", err)
		}
		dir = filepath.Join(home, ".cache", "bizra", "cluster", "run")
	}
	if bin == "" {
		self, err := os.Executable()
		if err != nil {
			return Layout{}, fmt.Errorf("finding this program's own folder (set BIZRA_CLUSTER_BIN): %w", err)
		}
		bin = filepath.Dir(self)
	}
	layout := Layout{}
	for _, folder := range []struct {
		name, value string
		target      *string
	}{{"BIZRA_CLUSTER_DIR", dir, &layout.Dir}, {"BIZRA_CLUSTER_BIN", bin, &layout.Bin}} {
		absolute, err := filepath.Abs(folder.value)
		if err != nil {
			return Layout{}, fmt.Errorf("%s=%s: %w", folder.name, folder.value, err)
		}
		for _, hidden := range Hidden {
			if absolute == hidden || strings.HasPrefix(absolute, hidden+"/") {
				return Layout{}, fmt.Errorf("%s=%s: every node hides %s behind a folder of its own; choose another place",
					folder.name, absolute, hidden)
			}
		}
		*folder.target = absolute
	}
	return layout, nil
}

// Path joins parts to the state folder.
func (l Layout) Path(parts ...string) string {
	return filepath.Join(append([]string{l.Dir}, parts...)...)
}

// Binary is the path of one of the built programs.
func (l Layout) Binary(name string) string { return filepath.Join(l.Bin, name) }

// Kubeconfig is the administrator's kubeconfig.
func (l Layout) Kubeconfig() string { return l.Path("admin.kubeconfig") }

// Record is the file with the pid of a process.
func (l Layout) Record(process string) string { return l.Path("pids", process) }

// Log is the log file of a control-plane process.
func (l Layout) Log(process string) string { return l.Path("logs", process+".log") }

// Certificate and Key are the files of one identity.
func (l Layout) Certificate(name string) string { return l.Path("pki", name+".crt") }

// Key is the private key that belongs to Certificate.
func (l Layout) Key(name string) string { return l.Path("pki", name+".key") }

// Lock is beside the state folder, so that it outlives its removal.
func (l Layout) Lock() string { return l.Dir + ".lock" }

// Node is one node's share of the layout.
type Node struct {
	Layout Layout
	Index  int
}

// Node gives the layout of node `index`.
func (l Layout) Node(index int) Node { return Node{Layout: l, Index: index} }

// Nodes gives the layouts of all nodes.
func (l Layout) Nodes() []Node {
	nodes := make([]Node, NodeCount)
	for i := range nodes {
		nodes[i] = l.Node(i)
	}
	return nodes
}

// Name is the Kubernetes name of the node.
func (n Node) Name() string { return fmt.Sprintf("node%d", n.Index) }

// Zone spreads the nodes over three zones.
func (n Node) Zone() string { return "zone-" + string(rune('a'+n.Index%3)) }

// Link is the node's link in the root network namespace.
func (n Node) Link() string { return fmt.Sprintf("%sv%d", LinkPrefix, n.Index) }

// HardwareAddress is fixed, so that neighbours need not learn a new one when the node was off and on.
func (n Node) HardwareAddress() string { return fmt.Sprintf("02:b1:2a:00:00:%02x", 0x10+n.Index) }

// Cgroup is the parent of the node's processes and Pods.
func (n Node) Cgroup() string { return filepath.Join(Cgroup, n.Name()) }

// Path joins parts to the node's own folder.
func (n Node) Path(parts ...string) string {
	return n.Layout.Path(append([]string{"nodes", n.Name()}, parts...)...)
}

// Log is a log file of the node.
func (n Node) Log(process string) string { return n.Path("logs", process+".log") }

// Volumes is the folder of the node's volume images.
func (n Node) Volumes() string { return n.Path("volumes") }

// Addresses is the plan of the cluster's networks.
type Addresses struct {
	Nodes    netip.Prefix `json:"nodes"`
	Services netip.Prefix `json:"services"`
	Pods     netip.Prefix `json:"pods"`
}

// ChooseAddresses takes the first plan that touches none of the prefixes already in use.
func ChooseAddresses(inUse []netip.Prefix) (Addresses, error) {
	for shift := range 6 {
		plan := Addresses{
			Nodes:    netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", 89-shift)),
			Services: netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", 97+shift)),
			Pods:     netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", 245-shift)),
		}
		if !plan.overlaps(inUse) {
			return plan, nil
		}
	}
	return Addresses{}, fmt.Errorf("every address range the cluster can use (10.84-89.0.0/24, 10.97-102.0.0/16, 10.240-245.0.0/16) " +
		"is routed on this machine already; remove one of these routes (`ip route`)")
}

func (a Addresses) overlaps(others []netip.Prefix) bool {
	for _, other := range others {
		// A default route overlaps everything and takes nothing.
		if other.Bits() > 0 && (a.Nodes.Overlaps(other) || a.Services.Overlaps(other) || a.Pods.Overlaps(other)) {
			return true
		}
	}
	return false
}

// Bridge is the address of the bridge: the control plane and the cluster's DNS server listen here.
func (a Addresses) Bridge() netip.Addr { return a.Nodes.Addr().Next() }

// Node is the address of a node: .10 for the first.
func (a Addresses) Node(index int) netip.Addr {
	bytes := a.Nodes.Addr().As4()
	bytes[3] = byte(10 + index)
	return netip.AddrFrom4(bytes)
}

// PodsOf is the range from which a node's Pods get their addresses.
func (a Addresses) PodsOf(index int) netip.Prefix {
	bytes := a.Pods.Addr().As4()
	bytes[2] = byte(index)
	return netip.PrefixFrom(netip.AddrFrom4(bytes), 24)
}

// KubernetesService is the cluster address of the API server: the first of the service range.
func (a Addresses) KubernetesService() netip.Addr { return a.Services.Addr().Next() }

// APIServer is the URL of the API server.
func (a Addresses) APIServer() string {
	return fmt.Sprintf("https://%s:%d", a.Bridge(), APIServerPort)
}
