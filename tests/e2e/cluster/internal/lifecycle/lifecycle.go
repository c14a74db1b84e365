// Package lifecycle is what the commands do: it puts the parts of the cluster together in the right order.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bizra.io/cluster/internal/cgroup"
	"bizra.io/cluster/internal/controlplane"
	"bizra.io/cluster/internal/layout"
	"bizra.io/cluster/internal/machine"
	"bizra.io/cluster/internal/network"
	"bizra.io/cluster/internal/node"
	"bizra.io/cluster/internal/render"
)

// Cluster is a cluster, running or not.
type Cluster struct {
	Layout      layout.Layout
	State       layout.State
	Hierarchies []cgroup.Hierarchy
	progress    progress
}

// progress prints one line a step, with the seconds since the start.
type progress struct {
	out   io.Writer
	start time.Time
	mutex *sync.Mutex
}

func (p progress) say(format string, arguments ...any) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	fmt.Fprintf(p.out, "[%5.1fs] %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, arguments...))
}

// New reads the environment and what is recorded of a cluster. Without a record the error is layout.ErrNoState, and the cluster
// is still good for Up and Down.
func New(out io.Writer) (*Cluster, error) {
	place, err := layout.FromEnvironment()
	if err != nil {
		return nil, err
	}
	hierarchies, err := cgroup.Discover()
	if err != nil {
		return nil, err
	}
	cluster := &Cluster{Layout: place, Hierarchies: hierarchies,
		progress: progress{out: out, start: time.Now(), mutex: &sync.Mutex{}}}
	return cluster, cluster.load()
}

func (c *Cluster) load() error {
	state, err := c.Layout.Load()
	if err != nil {
		return err
	}
	c.State = state
	// A running cluster goes on with the binaries it was started with, as long as they exist.
	if _, err := os.Stat(filepath.Join(state.Bin, "kubeplane")); err == nil {
		c.Layout.Bin = state.Bin
	}
	return nil
}

// Lock keeps two runs from working on one cluster; the second waits. The kernel frees the lock whatever way a run ends.
func (c *Cluster) Lock() (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(c.Layout.Lock()), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(c.Layout.Lock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		c.progress.say("another run works on this cluster; waiting for it")
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", c.Layout.Lock(), err)
	}
	// What the other run did must be seen.
	if err := c.load(); err != nil && !errors.Is(err, layout.ErrNoState) {
		c.progress.say("%v", err)
	}
	return func() { file.Close() }, nil
}

// refuseOther protects a cluster of another state folder: names of links and control groups exist once on a machine.
func (c *Cluster) refuseOther() error {
	owner := network.Owner()
	if owner == "" || owner == c.Layout.Dir {
		return nil
	}
	if _, err := os.Stat(filepath.Join(owner, "state.json")); err != nil {
		return nil // only remains
	}
	return fmt.Errorf("a cluster with its state in %s runs on this machine; remove it with `BIZRA_CLUSTER_DIR=%s cluster down`, "+
		"or set BIZRA_CLUSTER_DIR to use it", owner, owner)
}

func (c *Cluster) controlPlane() controlplane.ControlPlane {
	return controlplane.ControlPlane{Layout: c.Layout, State: c.State, Hierarchies: c.Hierarchies}
}

// Node gives control over one node.
func (c *Cluster) Node(index int) (node.Node, error) {
	if index < 0 || index >= layout.NodeCount {
		return node.Node{}, fmt.Errorf("there is no node %d: nodes are 0 to %d", index, layout.NodeCount-1)
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return node.Node{}, fmt.Errorf("finding runc (see packages.txt): %w", err)
	}
	cores, mebibytes, err := machine.Size()
	if err != nil {
		return node.Node{}, err
	}
	millicores, reserved := render.Reserve(cores, mebibytes)
	return node.Node{
		Node: render.Node{Node: c.Layout.Node(index), Addresses: c.State.Addresses, Runc: runc,
			ReservedMillicores: millicores, ReservedMebibytes: reserved},
		State: c.State, Hierarchies: c.Hierarchies,
	}, nil
}

// eachNode works on all nodes at once.
func (c *Cluster) eachNode(work func(node.Node) error) error {
	failures := make([]error, layout.NodeCount)
	var group sync.WaitGroup
	for index := range layout.NodeCount {
		group.Go(func() {
			target, err := c.Node(index)
			if err == nil {
				err = work(target)
			}
			failures[index] = err
		})
	}
	group.Wait()
	return errors.Join(failures...)
}

// wait polls until a check passes.
func wait(ctx context.Context, patience, pause time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %s: %w", patience, err)
		case <-time.After(pause):
		}
	}
}
