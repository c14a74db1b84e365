// Package controlplane runs etcd, the API server, the controller manager, the scheduler and the DNS server as processes in the
// root network namespace. etcd listens on Unix sockets in the state folder, the others on the bridge's address, so that no port of
// the machine is taken.
package controlplane

import (
	"context"
	"fmt"
	"os"
	"time"

	"bizra.io/cluster/internal/apiclient"
	"bizra.io/cluster/internal/cgroup"
	"bizra.io/cluster/internal/layout"
	"bizra.io/cluster/internal/process"
	"bizra.io/cluster/internal/render"
)

// Names lists the processes in the order in which they start.
var Names = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns"}

// Cgroup holds the control plane's processes.
const Cgroup = layout.Cgroup + "/control-plane"

// patience is for a loaded machine; the usual time is a few seconds.
const patience = 2 * time.Minute

// ControlPlane is the control plane of one cluster.
type ControlPlane struct {
	Layout      layout.Layout
	State       layout.State
	Hierarchies []cgroup.Hierarchy
}

func (c ControlPlane) arguments(name string) []string {
	place, addresses := c.Layout, c.State.Addresses
	bridge := addresses.Bridge().String()
	kubeplane := place.Binary("kubeplane")
	switch name {
	case "etcd":
		// These are sockets named "localhost:2379" and "localhost:2380" in the state folder, not ports: etcd wants the form of a
		// host and port, and the kernel allows only 107 bytes for an absolute path.
		return []string{place.Binary("etcd"), "--data-dir=etcd", "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=unix://localhost:2379", "--advertise-client-urls=unix://localhost:2379",
			"--listen-peer-urls=unix://localhost:2380", "--initial-advertise-peer-urls=unix://localhost:2380",
			"--initial-cluster=default=unix://localhost:2380"}
	case "kube-apiserver":
		return []string{kubeplane, name,
			"--etcd-servers=unix://localhost:2379",
			"--bind-address=" + bridge, "--advertise-address=" + bridge, fmt.Sprintf("--secure-port=%d", layout.APIServerPort),
			"--service-cluster-ip-range=" + addresses.Services.String(),
			"--cert-dir=" + place.Path("pki"),
			"--client-ca-file=" + place.Certificate("ca"),
			"--tls-cert-file=" + place.Certificate("apiserver"), "--tls-private-key-file=" + place.Key("apiserver"),
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + place.Certificate("service-account"),
			"--service-account-signing-key-file=" + place.Key("service-account"),
			"--authorization-mode=Node,RBAC", "--allow-privileged=true",
			// The second, as on OpenShift, is the strictest on what an owner reference needs.
			"--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
			"--audit-policy-file=" + place.Path("audit-policy.yaml"), "--audit-log-path=" + place.Log("audit"),
			"--kubelet-client-certificate=" + place.Certificate("apiserver-kubelet-client"),
			"--kubelet-client-key=" + place.Key("apiserver-kubelet-client"),
			"--kubelet-certificate-authority=" + place.Certificate("ca"),
			"--kubelet-preferred-address-types=InternalIP",
			"--requestheader-client-ca-file=" + place.Certificate("front-proxy-ca"),
			"--requestheader-allowed-names=front-proxy",
			"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + place.Certificate("front-proxy"), "--proxy-client-key-file=" + place.Key("front-proxy"),
			"--enable-aggregator-routing=true",
			"--default-not-ready-toleration-seconds=5", "--default-unreachable-toleration-seconds=5"}
	case "kube-controller-manager":
		return []string{kubeplane, name, "--bind-address=" + bridge, "--cert-dir=" + place.Path("pki"),
			"--kubeconfig=" + place.Path("controller-manager.kubeconfig"),
			"--service-account-private-key-file=" + place.Key("service-account"), "--root-ca-file=" + place.Certificate("ca"),
			"--cluster-signing-cert-file=" + place.Certificate("ca"), "--cluster-signing-key-file=" + place.Key("ca"),
			"--use-service-account-credentials", "--leader-elect=false",
			// It starts with some hundred requests; by default they take seconds.
			"--kube-api-qps=400", "--kube-api-burst=800",
			// The ranges are fixed in each node's CNI file; handed out here they would follow the order of registration.
			"--allocate-node-cidrs=false",
			"--node-monitor-period=1s", "--node-monitor-grace-period=8s",
			// A small cluster must not stop evicting because two of its five nodes are down.
			"--node-eviction-rate=1", "--secondary-node-eviction-rate=1", "--large-cluster-size-threshold=0"}
	case "kube-scheduler":
		return []string{kubeplane, name, "--bind-address=" + bridge, "--cert-dir=" + place.Path("pki"), "--leader-elect=false",
			"--kubeconfig=" + place.Path("scheduler.kubeconfig")}
	case "coredns":
		return []string{place.Binary("coredns"), "-conf", place.Path("Corefile")}
	}
	panic("not a control-plane process: " + name)
}

// Record reads the record of a process.
func (c ControlPlane) Record(name string) (process.Record, error) {
	return process.Read(c.Layout.Record(name))
}

// Ensure starts a process that does not run, and says whether it had to.
func (c ControlPlane) Ensure(name string) (bool, error) {
	record, err := c.Record(name)
	if err == nil && record.Alive() {
		return false, nil
	}
	if name == "etcd" {
		// A socket outlives the process that listened on it, and etcd does not bind over it.
		for _, socket := range []string{"localhost:2379", "localhost:2380"} {
			_ = os.Remove(c.Layout.Path(socket))
		}
	}
	if err := cgroup.Create(c.Hierarchies, Cgroup); err != nil {
		return false, err
	}
	record, err = process.Start(process.Command{
		Arguments: c.arguments(name), Directory: c.Layout.Dir, Log: c.Layout.Log(name),
		Environment: process.Environment(c.Layout, c.State.Instance),
	})
	if err != nil {
		return false, err
	}
	if err := record.Write(c.Layout.Record(name)); err != nil {
		return false, err
	}
	if err := cgroup.Join(c.Hierarchies, Cgroup, record.Pid); err != nil {
		if !record.Alive() {
			return false, fmt.Errorf("%s ended at once; see %s", name, c.Layout.Log(name))
		}
		return false, err
	}
	return true, nil
}

// WaitReady waits for the API server.
func (c ControlPlane) WaitReady(ctx context.Context, client *apiclient.Client) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := client.Ready(ctx)
		if err == nil {
			return nil
		}
		for _, name := range []string{"etcd", "kube-apiserver"} {
			if record, readErr := c.Record(name); readErr != nil || !record.Alive() {
				return fmt.Errorf("%s ended; see %s", name, c.Layout.Log(name))
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the API server is not ready after %s; see %s: %w", patience, c.Layout.Log("kube-apiserver"), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// WriteFiles writes kubeconfigs, Corefile and the resolv.conf of Pods.
func (c ControlPlane) WriteFiles() error {
	identities := []string{"admin", "controller-manager", "scheduler", "proxy", "dns", "storage", "policy"}
	for _, node := range c.Layout.Nodes() {
		identities = append(identities, node.Name())
	}
	authority, err := os.ReadFile(c.Layout.Certificate("ca"))
	if err != nil {
		return err
	}
	for _, identity := range identities {
		certificate, err := os.ReadFile(c.Layout.Certificate(identity))
		if err != nil {
			return err
		}
		key, err := os.ReadFile(c.Layout.Key(identity))
		if err != nil {
			return err
		}
		text, err := render.Kubeconfig(c.State.Addresses.APIServer(), authority, certificate, key)
		if err != nil {
			return err
		}
		if err := layout.WriteFile(c.Layout.Path(identity+".kubeconfig"), text, 0o600); err != nil {
			return err
		}
	}
	if err := layout.WriteFile(c.Layout.Path("audit-policy.yaml"), auditPolicy, 0o644); err != nil {
		return err
	}
	corefile, err := render.Corefile(c.Layout, c.State.Addresses)
	if err != nil {
		return err
	}
	if err := layout.WriteFile(c.Layout.Path("Corefile"), corefile, 0o644); err != nil {
		return err
	}
	resolver := fmt.Appendf(nil, "nameserver %s\n", c.State.Addresses.Bridge())
	return layout.WriteFile(c.Layout.Path("resolv.conf"), resolver, 0o644)
}
