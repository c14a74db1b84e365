// Package cgroup makes and removes the control groups of the cluster, on machines with version 1 controllers (one hierarchy each),
// and on machines with the single version 2 hierarchy.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Hierarchy is one mounted tree of control groups.
type Hierarchy struct {
	Mount   string
	Version int
	// Cpuset says that a new group takes no process before its cpus and memory nodes are set.
	Cpuset bool
}

// Discover finds the hierarchies that kubelets and containers will use.
func Discover() ([]Hierarchy, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", err)
	}
	hierarchies := Parse(string(table))
	if len(hierarchies) == 0 {
		return nil, errors.New("no cgroup file system is mounted; containers cannot run on this machine")
	}
	return hierarchies, nil
}

// Parse reads a mount table. Beside version 1 hierarchies there may be a version 2 tree without controllers (hybrid mode); runc makes
// groups there too, so it belongs to the hierarchies that are swept.
func Parse(table string) []Hierarchy {
	var first, second []Hierarchy
	for _, line := range strings.Split(table, "\n") {
		before, after, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) < 3 {
			continue
		}
		switch kind[0] {
		case "cgroup":
			hierarchy := Hierarchy{Mount: fields[4], Version: 1}
			for _, option := range strings.Split(kind[2], ",") {
				hierarchy.Cpuset = hierarchy.Cpuset || option == "cpuset"
			}
			first = append(first, hierarchy)
		case "cgroup2":
			second = append(second, Hierarchy{Mount: fields[4], Version: 2})
		}
	}
	return append(first, second[:min(1, len(second))]...)
}

// Create makes a group, and its parents, ready to take processes.
func Create(hierarchies []Hierarchy, group string) error {
	for _, hierarchy := range hierarchies {
		current := hierarchy.Mount
		for _, part := range strings.Split(group, "/") {
			parent := current
			current = filepath.Join(current, part)
			if hierarchy.Version == 2 {
				if err := delegate(parent); err != nil {
					return err
				}
			}
			if err := os.Mkdir(current, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("making cgroup %s (is this root, and is the tree writable?): %w", current, err)
			}
			if hierarchy.Cpuset {
				for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
					if err := inherit(parent, current, file); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

func inherit(parent, child, file string) error {
	value, err := os.ReadFile(filepath.Join(parent, file))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(child, file), value, 0o644)
}

// delegate lets the children of a version 2 group use every controller that the group has.
func delegate(group string) error {
	controllers, err := os.ReadFile(filepath.Join(group, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(controllers)) {
		// Some controllers refuse (cpu with real-time tasks); containers only need those that do not.
		_ = os.WriteFile(filepath.Join(group, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
	}
	return nil
}

// Join moves a process, and so all it will start, into a group.
func Join(hierarchies []Hierarchy, group string, pid int) error {
	for _, hierarchy := range hierarchies {
		file := filepath.Join(hierarchy.Mount, group, "cgroup.procs")
		if err := os.WriteFile(file, []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fmt.Errorf("moving process %d into %s: %w", pid, filepath.Dir(file), err)
		}
	}
	return nil
}

// Processes lists the pids in a group and all groups below it.
func Processes(hierarchies []Hierarchy, group string) []int {
	seen := map[int]bool{}
	var pids []int
	for _, hierarchy := range hierarchies {
		root := filepath.Join(hierarchy.Mount, group)
		// A group may vanish while it is looked at; what is gone holds no process.
		_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.Name() != "cgroup.procs" {
				return nil
			}
			data, _ := os.ReadFile(path)
			for _, field := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 && !seen[pid] {
					seen[pid] = true
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	return pids
}

// Remove deletes a group with all below it, waiting for the kernel to let go of processes that have just ended.
func Remove(hierarchies []Hierarchy, group string, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		left := Existing(hierarchies, group)
		for _, root := range left {
			removeTree(root)
		}
		if left = Existing(hierarchies, group); len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("these cgroups stay busy: %s", strings.Join(left, " "))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func removeTree(group string) {
	entries, err := os.ReadDir(group)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if entry.IsDir() {
			removeTree(filepath.Join(group, entry.Name()))
		}
	}
	// Only rmdir works on a cgroup; while it is busy the caller tries again.
	_ = os.Remove(group)
}

// Existing lists the folders of a group that are there.
func Existing(hierarchies []Hierarchy, group string) []string {
	var found []string
	for _, hierarchy := range hierarchies {
		folder := filepath.Join(hierarchy.Mount, group)
		if _, err := os.Stat(folder); err == nil {
			found = append(found, folder)
		}
	}
	return found
}
