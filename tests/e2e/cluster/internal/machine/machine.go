// Package machine keeps track of what the cluster changes on the machine around it, so that `down` can undo it: mount points,
// kernel settings, loop devices and one firewall rule.
package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bizra.io/cluster/internal/layout"
	"bizra.io/cluster/internal/loopdevice"
)

// programs are needed from the machine; packages.txt says which Debian packages bring them.
var programs = []string{"runc", "nft", "iptables", "conntrack", "mkfs.xfs", "xfs_growfs"}

// binaries come from build.sh.
var binaries = []string{"kubeplane", "etcd", "coredns", "containerd", "containerd-shim-runc-v2", "ctr", "bridge", "host-local", "loopback", "pause"}

// settings are not per namespace, and a kubelet sets them.
var settings = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

// mountPoints are covered in every node.
var mountPoints = []string{"/var/lib/kubelet", "/var/lib/cni", "/var/log"}

// Check says what is missing before anything is started.
func Check(place layout.Layout) error {
	if os.Geteuid() != 0 {
		return errors.New("the cluster makes namespaces, links and mounts, and so needs root: run this with sudo")
	}
	var missing []string
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("this machine lacks %s: install the packages named in tests/e2e/cluster/packages.txt",
			strings.Join(missing, ", "))
	}
	for _, binary := range binaries {
		if _, err := os.Stat(place.Binary(binary)); err != nil {
			return fmt.Errorf("no %s in %s: run tests/e2e/cluster/build.sh and set BIZRA_CLUSTER_BIN to the folder it prints",
				binary, place.Bin)
		}
	}
	return nil
}

// BootID changes with every start of the machine.
func BootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// Observe notes the machine as it is, before the cluster changes it.
func Observe(state *layout.State) error {
	state.Boot = BootID()
	state.Sysctls = map[string]string{}
	for _, setting := range settings {
		if value, err := os.ReadFile(filepath.Join("/proc/sys", setting)); err == nil {
			state.Sysctls[setting] = strings.TrimSpace(string(value))
		}
	}
	state.LoopDevices = loopdevice.Nodes()
	for _, folder := range mountPoints {
		if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
			state.CreatedFolders = append(state.CreatedFolders, folder)
		}
	}
	state.ForwardRule = forwardDrops()
	return nil
}

// Prepare makes the changes that Observe foresaw.
func Prepare(state layout.State) error {
	for _, folder := range mountPoints {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("making the mount point %s: %w", folder, err)
		}
	}
	if state.ForwardRule && !ruleExists() {
		if output, err := exec.Command("iptables", append([]string{"-I", "FORWARD"}, rule...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("letting packets pass between the nodes: %w: %s", err, bytes.TrimSpace(output))
		}
	}
	return nil
}

// rule lets bridged packets pass where the machine's firewall sees and drops them (as with Docker installed).
var rule = []string{"-i", layout.Bridge, "-o", layout.Bridge, "-j", "ACCEPT"}

func forwardDrops() bool {
	output, err := exec.Command("iptables", "-S", "FORWARD").Output()
	return err == nil && strings.HasPrefix(string(output), "-P FORWARD DROP")
}

func ruleExists() bool {
	return exec.Command("iptables", append([]string{"-C", "FORWARD"}, rule...)...).Run() == nil
}

// Restore undoes every change.
func Restore(state layout.State) error {
	var failures []error
	for setting, value := range state.Sysctls {
		path := filepath.Join("/proc/sys", setting)
		if now, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(now)) != value {
			failures = append(failures, os.WriteFile(path, []byte(value), 0o644))
		}
	}
	for _, folder := range state.CreatedFolders {
		// Not empty means that somebody else uses it by now.
		if err := unix.Rmdir(folder); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTEMPTY) {
			failures = append(failures, fmt.Errorf("removing the mount point %s: %w", folder, err))
		}
	}
	if state.ForwardRule && ruleExists() {
		failures = append(failures, exec.Command("iptables", append([]string{"-D", "FORWARD"}, rule...)...).Run())
	}
	if len(state.LoopDevices) > 0 {
		failures = append(failures, deleteLoopDevices(state.LoopDevices))
	}
	return errors.Join(failures...)
}

func deleteLoopDevices(before []string) error {
	devices, err := loopdevice.List()
	if err != nil {
		return err
	}
	var attached []string
	for _, device := range devices {
		attached = append(attached, filepath.Base(device.Path))
	}
	var failures []error
	for _, name := range loopdevice.Nodes() {
		if !slices.Contains(before, name) && !slices.Contains(attached, name) {
			failures = append(failures, loopdevice.Delete(name))
		}
	}
	return errors.Join(failures...)
}

// Size is the number of processors and the memory in MiB.
func Size() (cores, mebibytes int, err error) {
	var information unix.Sysinfo_t
	if err := unix.Sysinfo(&information); err != nil {
		return 0, 0, fmt.Errorf("asking for the machine's memory: %w", err)
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, 0, fmt.Errorf("asking for the machine's processors: %w", err)
	}
	return set.Count(), int(uint64(information.Totalram) * uint64(information.Unit) >> 20), nil
}
