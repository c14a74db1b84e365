package cleanup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"bizra.io/cluster/internal/cgroup"
	"bizra.io/cluster/internal/layout"
	"bizra.io/cluster/internal/loopdevice"
	"bizra.io/cluster/internal/network"
	"bizra.io/cluster/internal/process"
)

// Finding is what one check found.
type Finding struct {
	// Kind is what was looked for.
	Kind string
	// Left names what is still there.
	Left []string
}

// Inspect looks for everything that a cluster may leave on a machine.
func Inspect(place layout.Layout, state layout.State, hierarchies []cgroup.Hierarchy) ([]Finding, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", err)
	}
	devices, err := loopdevice.List()
	if err != nil {
		return nil, err
	}
	links, err := network.Links()
	if err != nil {
		return nil, err
	}
	var loops []string
	for _, device := range loopdevice.Below(devices, place.Dir) {
		loops = append(loops, device.Path+" ("+device.Backing+")")
	}
	var processes []string
	for _, record := range processesOf(state, hierarchies) {
		status, err := process.StatusOf(record.Pid)
		if err == nil {
			processes = append(processes, fmt.Sprintf("%d (%s)", record.Pid, status.Name))
		}
	}
	var folders []string
	for _, folder := range append([]string{place.Dir}, state.CreatedFolders...) {
		if _, err := os.Lstat(folder); !errors.Is(err, fs.ErrNotExist) {
			folders = append(folders, folder)
		}
	}
	rules := MentionsOf(output("iptables-save"), layout.LinkPrefix)
	rules = append(rules, MentionsOf(output("nft", "list", "ruleset"), layout.LinkPrefix)...)
	return []Finding{
		{"processes", processes},
		{"mounts", MountsBelow(string(table), place.Dir)},
		{"loop devices", loops},
		{"namespaces", Namespaces(state)},
		{"links and routes", links},
		{"cgroups", cgroup.Existing(hierarchies, layout.Cgroup)},
		{"iptables and nftables rules", rules},
		{"kernel settings", changedSettings(state)},
		{"folders", folders},
	}, nil
}

// output is empty where the program is missing: then it cannot have made a rule either.
func output(program string, arguments ...string) string {
	text, err := exec.Command(program, arguments...).Output()
	if err != nil {
		return ""
	}
	return string(text)
}

// MountsBelow picks the mount points below a folder out of a mount table.
func MountsBelow(table, folder string) []string {
	var found []string
	for _, line := range strings.Split(table, "\n") {
		if fields := strings.Fields(line); len(fields) > 4 {
			// Blanks and the like are written as octal escapes.
			point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
			if strings.HasPrefix(point, strings.TrimSuffix(folder, "/")+"/") {
				found = append(found, point)
			}
		}
	}
	return found
}

// MentionsOf picks the lines that name something.
func MentionsOf(text, name string) []string {
	var found []string
	for _, line := range strings.Split(text, "\n") {
		if strings.Contains(line, name) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// Namespaces finds process namespaces that are still held by a process whose root is not this one's, and that carries the
// cluster's id; the namespaces of a node live exactly as long as its processes.
func Namespaces(state layout.State) []string {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil
	}
	seen := map[string]bool{}
	var found []string
	for _, record := range process.Marked(state.Instance) {
		name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", record.Pid))
		if err == nil && name != own && !seen[name] {
			seen[name] = true
			found = append(found, name)
		}
	}
	return found
}

func changedSettings(state layout.State) []string {
	var changed []string
	for setting, value := range state.Sysctls {
		now, err := os.ReadFile(filepath.Join("/proc/sys", setting))
		if err == nil && strings.TrimSpace(string(now)) != value {
			changed = append(changed, setting)
		}
	}
	return changed
}
