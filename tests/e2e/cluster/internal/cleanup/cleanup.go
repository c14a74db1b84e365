// Package cleanup removes a cluster, whole or half-made, and then looks whether anything is left.
package cleanup

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"bizra.io/cluster/internal/cgroup"
	"bizra.io/cluster/internal/controlplane"
	"bizra.io/cluster/internal/layout"
	"bizra.io/cluster/internal/loopdevice"
	"bizra.io/cluster/internal/machine"
	"bizra.io/cluster/internal/network"
	"bizra.io/cluster/internal/process"
)

// patience bounds the wait for the kernel to let go of something.
const patience = 20 * time.Second

// Sweep removes everything: it goes on after a failure, so that as little as possible stays, and reports all of them.
func Sweep(place layout.Layout, state layout.State, hierarchies []cgroup.Hierarchy) error {
	var failures []error
	attempt := func(what string, err error) {
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", what, err))
		}
	}
	ended, err := killAll(place, state, hierarchies)
	attempt("ending processes", err)
	for _, node := range place.Nodes() {
		attempt("disconnecting "+node.Name(), network.DisconnectNode(node, state.Addresses))
	}
	links, err := network.Links()
	attempt("listing links", err)
	for _, link := range links {
		attempt("removing link "+link, network.RemoveLink(link))
	}
	attempt("removing control groups", cgroup.Remove(hierarchies, layout.Cgroup, patience))
	attempt("unmounting", unmount(place))
	attempt("releasing loop devices", releaseLoopDevices(place))
	attempt("restoring the machine", machine.Restore(state))
	if len(failures) > 0 {
		// The state is needed to try again.
		return errors.Join(failures...)
	}
	if err := os.RemoveAll(place.Dir); err != nil {
		return fmt.Errorf("removing the state folder: %w", err)
	}
	process.WaitReaped(ended, patience/2)
	return nil
}

// killAll repeats, as a process may have started another just before it was ended.
func killAll(place layout.Layout, state layout.State, hierarchies []cgroup.Hierarchy) (ended []process.Record, err error) {
	for range 5 {
		records := processesOf(state, hierarchies)
		names := controlplane.Names
		for _, node := range place.Nodes() {
			names = append(names, node.Name())
		}
		for _, name := range names {
			record, err := process.Read(place.Record(name))
			if err == nil && record.Alive() {
				records = append(records, record)
			}
		}
		if len(records) == 0 {
			return ended, nil
		}
		ended = append(ended, records...)
		if err := process.KillAll(records, patience); err != nil {
			return ended, err
		}
	}
	return ended, errors.New("new processes keep appearing")
}

// processesOf finds the cluster's processes without their records: by the id in their environment and by control group.
func processesOf(state layout.State, hierarchies []cgroup.Hierarchy) []process.Record {
	records := process.Marked(state.Instance)
	known := map[int]bool{}
	for _, record := range records {
		known[record.Pid] = true
	}
	for _, pid := range cgroup.Processes(hierarchies, layout.Cgroup) {
		if record, err := process.RecordOf(pid); err == nil && record.Alive() && !known[pid] {
			records = append(records, record)
		}
	}
	return records
}

func unmount(place layout.Layout) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	points := MountsBelow(string(table), place.Dir)
	var failures []error
	// Later mounts may lie upon earlier ones.
	for i := len(points) - 1; i >= 0; i-- {
		if err := unix.Unmount(points[i], unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			failures = append(failures, fmt.Errorf("%s: %w", points[i], err))
		}
	}
	return errors.Join(failures...)
}

func releaseLoopDevices(place layout.Layout) error {
	deadline := time.Now().Add(patience)
	for {
		devices, err := loopdevice.List()
		if err != nil {
			return err
		}
		left := loopdevice.Below(devices, place.Dir)
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s stays attached to %s", left[0].Path, left[0].Backing)
		}
		// Usually the kernel is only just about to give them back by itself.
		if time.Until(deadline) < patience/2 {
			for _, device := range left {
				if err := loopdevice.Detach(device.Path); err != nil {
					return err
				}
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}
