package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"bizra.io/cluster/internal/cgroup"
	"bizra.io/cluster/internal/layout"
	"bizra.io/cluster/internal/loopdevice"
	"bizra.io/cluster/internal/network"
	"bizra.io/cluster/internal/process"
	"bizra.io/cluster/internal/render"
)

// patience bounds every wait for the kernel or a daemon.
const patience = 30 * time.Second

// Node controls one node from outside its namespaces.
type Node struct {
	render.Node
	State       layout.State
	Hierarchies []cgroup.Hierarchy
}

// record names pid 1 of the node.
func (n Node) record() string { return n.Layout.Record(n.Name()) }

// Init is the record of the node's pid 1, as the root namespace sees it.
func (n Node) Init() (process.Record, error) { return process.Read(n.record()) }

// On says whether the node has power.
func (n Node) On() bool {
	record, err := n.Init()
	return err == nil && record.Alive()
}

// Start gives the node power: new namespaces, a link, and its daemons. What is left of an earlier life is cleared first.
func (n Node) Start() error {
	if err := n.Stop(); err != nil {
		return err
	}
	if err := n.Write(); err != nil {
		return err
	}
	group := filepath.Join(n.Cgroup(), "system")
	if err := cgroup.Create(n.Hierarchies, group); err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer write.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	record, err := process.Start(process.Command{
		Arguments:   []string{self, InitCommand, n.Layout.Dir, n.Layout.Bin, fmt.Sprint(n.Index)},
		Directory:   "/",
		Environment: process.Environment(n.Layout, n.State.Instance),
		Log:         n.Log("init"),
		Namespaces:  unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWPID,
		Inherited:   []*os.File{read},
	})
	read.Close()
	if err != nil {
		return err
	}
	if err := record.Write(n.record()); err != nil {
		return err
	}
	if err := cgroup.Join(n.Hierarchies, group, record.Pid); err != nil {
		return err
	}
	if err := network.ConnectNode(n.Node.Node, n.State.Addresses, record.Pid); err != nil {
		return err
	}
	if _, err := write.WriteString(startSignal); err != nil {
		return fmt.Errorf("%s did not wait for its start; see %s: %w", n.Name(), n.Log("init"), err)
	}
	return nil
}

// Stop takes the node's power away: the kernel ends every process, and with them go mounts, network and loop devices. Its disk
// stays: images, volumes, the kubelet's folder.
func (n Node) Stop() error {
	record, err := n.Init()
	if err != nil {
		return err
	}
	processes := []process.Record{record}
	for _, pid := range cgroup.Processes(n.Hierarchies, n.Cgroup()) {
		if member, err := process.RecordOf(pid); err == nil {
			processes = append(processes, member)
		}
	}
	if err := process.KillAll(processes, patience); err != nil {
		return fmt.Errorf("taking the power of %s: %w", n.Name(), err)
	}
	if err := network.DisconnectNode(n.Node.Node, n.State.Addresses); err != nil {
		return err
	}
	// Pod groups of an earlier life would hold up the next kubelet by seconds each.
	if err := cgroup.Remove(n.Hierarchies, n.Cgroup(), patience); err != nil {
		return err
	}
	if err := n.releaseVolumes(); err != nil {
		return err
	}
	if err := os.Remove(n.record()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// releaseVolumes waits for the kernel to give back the loop devices of the unmounted volumes.
func (n Node) releaseVolumes() error {
	deadline := time.Now().Add(patience)
	for {
		devices, err := loopdevice.List()
		if err != nil {
			return err
		}
		busy := loopdevice.Below(devices, n.Volumes())
		if len(busy) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s still holds %s after %s; `losetup --list` shows who else uses it", n.Name(), busy[0].Path, patience)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Socket is containerd's socket as it can be reached from the root namespace.
func (n Node) Socket() (string, error) {
	record, err := n.Init()
	if err != nil {
		return "", err
	}
	if !record.Alive() {
		return "", fmt.Errorf("%s is off; `cluster node-on %d` gives it power", n.Name(), n.Index)
	}
	return fmt.Sprintf("/proc/%d/root%s", record.Pid, layout.ContainerdSocket), nil
}

// WaitForContainerd waits until images can be loaded.
func (n Node) WaitForContainerd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		socket, err := n.Socket()
		if err != nil {
			return fmt.Errorf("%s ended while it was being set up; see %s", n.Name(), n.Log("init"))
		}
		connection, err := net.Dial("unix", socket)
		if err == nil {
			return connection.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("containerd of %s does not listen after %s; see %s and %s", n.Name(), patience, n.Log("init"), n.Log("containerd"))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Running maps the node's daemons to their pids in the root namespace.
func (n Node) Running() map[string]int {
	record, err := n.Init()
	if err != nil || !record.Alive() {
		return nil
	}
	running := map[string]int{}
	for pid, arguments := range process.Children(record.Pid) {
		name := filepath.Base(arguments[0])
		if name == "kubeplane" && len(arguments) > 1 {
			name = arguments[1]
		}
		for _, daemon := range Daemons {
			if name == daemon {
				running[daemon] = pid
			}
		}
	}
	return running
}
