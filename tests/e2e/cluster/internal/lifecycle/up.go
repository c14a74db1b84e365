package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bizra.io/cluster/internal/apiclient"
	"bizra.io/cluster/internal/cleanup"
	"bizra.io/cluster/internal/controlplane"
	"bizra.io/cluster/internal/image"
	"bizra.io/cluster/internal/layout"
	"bizra.io/cluster/internal/machine"
	"bizra.io/cluster/internal/network"
	"bizra.io/cluster/internal/node"
	"bizra.io/cluster/internal/pki"
)

// Up starts the cluster, or heals what is missing of a running one.
func (c *Cluster) Up(ctx context.Context) error {
	if err := machine.Check(c.Layout); err != nil {
		return err
	}
	if err := c.refuseOther(); err != nil {
		return err
	}
	if err := c.clearRemains(); err != nil {
		return err
	}
	if err := c.prepare(); err != nil {
		return err
	}
	control := c.controlPlane()
	client, err := apiclient.New(c.Layout, c.State.Addresses)
	if err != nil {
		return err
	}
	var started atomic.Int32
	ensure := func(names ...string) error {
		for _, name := range names {
			fresh, err := control.Ensure(name)
			if err != nil {
				return fmt.Errorf("starting %s: %w", name, err)
			}
			if fresh {
				started.Add(1)
			}
		}
		return nil
	}
	if err := ensure("etcd", "kube-apiserver"); err != nil {
		return err
	}
	// The nodes' containerds start and take their images while the API server comes up; their kubelets wait for it.
	archives, err := image.Kept(c.Layout)
	if err != nil {
		return err
	}
	var powered [layout.NodeCount]time.Time
	nodes := make(chan error, 1)
	go func() {
		nodes <- c.eachNode(func(n node.Node) error {
			begun := time.Now()
			fresh, err := c.ensureNode(ctx, n, archives)
			if fresh {
				started.Add(1)
				powered[n.Index] = begun
			}
			return err
		})
	}()
	if err := control.WaitReady(ctx, client); err != nil {
		return errors.Join(err, <-nodes)
	}
	if started.Load() > 0 {
		c.progress.say("API server ready")
	}
	var group sync.WaitGroup
	var ensured, applied error
	group.Go(func() { ensured = ensure(controlplane.Names[2:]...) })
	group.Go(func() {
		// The roles of a new API server appear a moment after it is ready.
		applied = wait(ctx, time.Minute, 200*time.Millisecond, func(ctx context.Context) error {
			return controlplane.ApplyObjects(ctx, client)
		})
	})
	group.Wait()
	if err := errors.Join(ensured, applied, <-nodes); err != nil {
		return err
	}
	if started.Load() > 0 {
		c.progress.say("all nodes started, waiting for them to be Ready")
	}
	if err := c.waitForNodes(ctx, client, powered); err != nil {
		return err
	}
	if err := c.waitForNames(ctx); err != nil {
		return err
	}
	if !c.State.Complete {
		c.State.Complete = true
		if err := c.Layout.Save(c.State); err != nil {
			return err
		}
	}
	if started.Load() == 0 {
		c.progress.say("the cluster was running already")
	} else {
		c.progress.say("the cluster is up: %d nodes, DNS and volumes work", layout.NodeCount)
	}
	fmt.Fprintf(c.progress.out, "export KUBECONFIG=%s\n", c.Layout.Kubeconfig())
	return nil
}

// clearRemains removes what an interrupted run, or a reboot, left.
func (c *Cluster) clearRemains() error {
	reason := ""
	switch {
	case c.State.Instance != "" && !c.State.Complete:
		reason = "an earlier `up` was interrupted"
	case c.State.Instance != "" && c.State.Boot != machine.BootID():
		reason = "the machine was restarted"
	case c.State.Instance == "":
		findings, err := cleanup.Inspect(c.Layout, c.State, c.Hierarchies)
		if err != nil {
			return err
		}
		for _, finding := range findings {
			if len(finding.Left) > 0 {
				reason = fmt.Sprintf("%s of an earlier cluster are left (%s)", finding.Kind, strings.Join(finding.Left, ", "))
				break
			}
		}
	}
	if reason == "" {
		return nil
	}
	c.progress.say("%s: removing its remains", reason)
	if err := cleanup.Sweep(c.Layout, c.State, c.Hierarchies); err != nil {
		return fmt.Errorf("removing the remains of an earlier cluster: %w", err)
	}
	c.State = layout.State{}
	return nil
}

// prepare makes everything that is not a process.
func (c *Cluster) prepare() error {
	if c.State.Instance == "" {
		inUse, err := network.InUse()
		if err != nil {
			return err
		}
		addresses, err := layout.ChooseAddresses(inUse)
		if err != nil {
			return err
		}
		c.State = layout.State{Instance: layout.NewInstance(), Bin: c.Layout.Bin, Addresses: addresses}
		if err := machine.Observe(&c.State); err != nil {
			return err
		}
		// Before the first change, so that an interrupted run can be undone.
		if err := os.MkdirAll(c.Layout.Dir, 0o755); err != nil {
			return err
		}
		if err := c.Layout.Save(c.State); err != nil {
			return err
		}
		c.progress.say("a new cluster in %s: nodes %s, pods %s, services %s", c.Layout.Dir, addresses.Nodes, addresses.Pods,
			addresses.Services)
	}
	if err := machine.Prepare(c.State); err != nil {
		return err
	}
	if err := pki.WriteCluster(c.Layout, c.State.Addresses); err != nil {
		return fmt.Errorf("making certificates: %w", err)
	}
	if err := c.controlPlane().WriteFiles(); err != nil {
		return fmt.Errorf("writing configuration: %w", err)
	}
	if err := c.keepPauseImage(); err != nil {
		return fmt.Errorf("making the sandbox image: %w", err)
	}
	return network.EnsureBridge(c.State.Addresses, c.Layout.Dir)
}

func (c *Cluster) keepPauseImage() error {
	path := c.Layout.Path("images", "pause.tar")
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	program, err := os.ReadFile(c.Layout.Binary("pause"))
	if err != nil {
		return err
	}
	archive, err := image.SingleProgram(layout.PauseImage, "pause", program)
	if err != nil {
		return err
	}
	return layout.WriteFile(path, archive, 0o644)
}

// ensureNode starts a node without power and gives it the images it lacks.
func (c *Cluster) ensureNode(ctx context.Context, target node.Node, archives []image.Archive) (fresh bool, err error) {
	linked := false
	if target.On() {
		if linked, err = network.Repair(target.Node.Node, c.State.Addresses); err != nil {
			return false, err
		}
	}
	if !linked {
		fresh = true
		if err := target.Start(); err != nil {
			return fresh, fmt.Errorf("starting %s: %w", target.Name(), err)
		}
	}
	if err := target.WaitForContainerd(ctx); err != nil {
		return fresh, err
	}
	for _, archive := range archives {
		if _, err := image.Load(ctx, target, archive); err != nil {
			return fresh, err
		}
	}
	return fresh, nil
}

// waitForNodes waits until every node is Ready and knows the storage driver, and Pods can be made. For a node that was started by
// this run (at the time in powered) only a newer word counts.
func (c *Cluster) waitForNodes(ctx context.Context, client *apiclient.Client, powered [layout.NodeCount]time.Time) error {
	return wait(ctx, 2*time.Minute, 250*time.Millisecond, func(ctx context.Context) error {
		nodes, err := client.Nodes(ctx)
		if err != nil {
			return err
		}
		seen := map[string]apiclient.Node{}
		for _, known := range nodes {
			seen[known.Name] = known
		}
		for _, place := range c.Layout.Nodes() {
			known, ok := seen[place.Name()]
			switch {
			case !ok:
				return fmt.Errorf("%s has not registered; see %s", place.Name(), place.Log("kubelet"))
			case !known.Ready:
				return fmt.Errorf("%s is not Ready: %s; see %s", place.Name(), known.Message, place.Log("kubelet"))
			case known.Heartbeat.Before(powered[place.Index].Truncate(time.Second)):
				return fmt.Errorf("%s has not reported since it was started; see %s", place.Name(), place.Log("kubelet"))
			case !known.Storage:
				return fmt.Errorf("%s does not know its storage driver; see %s", place.Name(), place.Log("csi-driver"))
			}
		}
		// Without it no Pod is admitted; the controller manager makes it.
		return client.Exists(ctx, "/api/v1/namespaces/default/serviceaccounts/default")
	})
}

// waitForNames asks the cluster's DNS server for the one name that is always there.
func (c *Cluster) waitForNames(ctx context.Context) error {
	server := net.JoinHostPort(c.State.Addresses.Bridge().String(), "53")
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, server)
	}}
	err := wait(ctx, 30*time.Second, 100*time.Millisecond, func(ctx context.Context) error {
		_, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
		return err
	})
	if err != nil {
		return fmt.Errorf("the DNS server at %s does not answer (see %s) %w", server, c.Layout.Log("coredns"), err)
	}
	return nil
}

// LoadImage keeps an archive and loads it into every node that has power.
func (c *Cluster) LoadImage(ctx context.Context, path string) error {
	archive, err := image.Open(path)
	if err != nil {
		return err
	}
	if archive, err = image.Keep(c.Layout, archive); err != nil {
		return err
	}
	var loaded, off atomic.Int32
	err = c.eachNode(func(target node.Node) error {
		if !target.On() {
			off.Add(1)
			return nil
		}
		needed, err := image.Load(ctx, target, archive)
		if needed {
			loaded.Add(1)
		}
		return err
	})
	if err != nil {
		return err
	}
	c.progress.say("%s: loaded into %d nodes, %d had it, %d are off and get it with their power", strings.Join(archive.Names, ", "),
		loaded.Load(), layout.NodeCount-loaded.Load()-off.Load(), off.Load())
	return nil
}

// LogFolders says where logs are.
func (c *Cluster) LogFolders() []string {
	folders := []string{c.Layout.Path("logs")}
	for _, place := range c.Layout.Nodes() {
		folders = append(folders, filepath.Dir(place.Log("init")))
	}
	return folders
}
