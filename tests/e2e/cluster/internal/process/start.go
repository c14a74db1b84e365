package process

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"bizra.io/cluster/internal/layout"
)

// Command describes a program that outlives this one.
type Command struct {
	Arguments   []string
	Directory   string
	Environment []string
	Log         string
	// Namespaces are CLONE_NEW* flags.
	Namespaces uintptr
	// Inherited becomes file descriptor 3 and up.
	Inherited []*os.File
}

// Start runs the command in a session of its own and returns its record; the caller keeps it.
func Start(command Command) (Record, error) {
	if err := os.MkdirAll(filepath.Dir(command.Log), 0o755); err != nil {
		return Record{}, err
	}
	log, err := os.OpenFile(command.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return Record{}, err
	}
	defer log.Close()
	process := exec.Command(command.Arguments[0], command.Arguments[1:]...)
	process.Dir, process.Env = command.Directory, command.Environment
	process.Stdout, process.Stderr, process.ExtraFiles = log, log, command.Inherited
	process.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: command.Namespaces}
	if err := process.Start(); err != nil {
		return Record{}, fmt.Errorf("starting %s: %w", command.Arguments[0], err)
	}
	record, err := RecordOf(process.Process.Pid)
	if err != nil {
		return Record{}, err
	}
	// Reaped here if it ends while this program still runs; otherwise init does it.
	go process.Wait() //nolint:errcheck // its log says why it ended
	return record, nil
}

// Environment is what every process of the cluster gets; nothing of the caller's leaks in, above all no proxy settings.
func Environment(place layout.Layout, instance string) []string {
	return []string{
		"PATH=" + place.Bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		layout.InstanceVariable + "=" + instance,
	}
}

// Marked finds every living process that carries the id of a cluster in its environment: also those that an interrupted run
// started and had no time to record.
func Marked(instance string) []Record {
	if instance == "" {
		return nil
	}
	marker := []byte(layout.InstanceVariable + "=" + instance)
	var found []Record
	for _, pid := range All() {
		environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil || !HasVariable(environment, marker) {
			continue
		}
		if record, err := RecordOf(pid); err == nil && record.Alive() {
			found = append(found, record)
		}
	}
	return found
}

// HasVariable looks for an assignment in a block of NUL-ended ones.
func HasVariable(environment, assignment []byte) bool {
	for _, entry := range bytes.Split(environment, []byte{0}) {
		if bytes.Equal(entry, assignment) {
			return true
		}
	}
	return false
}

// All lists the pids of the machine.
func All() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Children lists the processes whose parent is `parent`, by program name; the last field of a multi-call program's command line
// that is not a flag is not looked at, so callers compare arguments.
func Children(parent int) map[int][]string {
	children := map[int][]string{}
	for _, pid := range All() {
		status, err := StatusOf(pid)
		if err != nil || status.Parent != parent {
			continue
		}
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
			var arguments []string
			for _, argument := range bytes.Split(bytes.TrimRight(line, "\x00"), []byte{0}) {
				arguments = append(arguments, string(argument))
			}
			children[pid] = arguments
		}
	}
	return children
}
