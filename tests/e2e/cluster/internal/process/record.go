// Package process starts the long-running programs of the cluster, remembers them, and ends exactly those. A pid alone may belong
// to somebody else after a while, so a record is the pid and the time at which the kernel started that process.
package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bizra.io/cluster/internal/layout"
)

// Record names one process for as long as the machine is up.
type Record struct {
	Pid int
	// Started is in clock ticks since boot, field 22 of /proc/<pid>/stat.
	Started uint64
}

// Status is the part of /proc/<pid>/stat that is needed here.
type Status struct {
	Name    string
	State   byte
	Parent  int
	Started uint64
}

// ParseStatus reads a line of /proc/<pid>/stat. The name stands in parentheses and may itself hold parentheses and blanks.
func ParseStatus(line string) (Status, error) {
	open, closed := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || closed < open {
		return Status{}, fmt.Errorf("no program name in %q", line)
	}
	fields := strings.Fields(line[closed+1:])
	if len(fields) < 20 {
		return Status{}, fmt.Errorf("only %d fields after the name in %q", len(fields), line)
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return Status{}, fmt.Errorf("parent in %q: %w", line, err)
	}
	started, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return Status{}, fmt.Errorf("start time in %q: %w", line, err)
	}
	return Status{Name: line[open+1 : closed], State: fields[0][0], Parent: parent, Started: started}, nil
}

// StatusOf reads the status of a process.
func StatusOf(pid int) (Status, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Status{}, err
	}
	return ParseStatus(string(data))
}

// RecordOf makes a record of a living process.
func RecordOf(pid int) (Record, error) {
	status, err := StatusOf(pid)
	if err != nil {
		return Record{}, fmt.Errorf("process %d is gone: %w", pid, err)
	}
	return Record{Pid: pid, Started: status.Started}, nil
}

// Read reads a record file. A missing file gives the zero record, which is not alive.
func Read(path string) (Record, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, nil
	}
	if err != nil {
		return Record{}, err
	}
	var record Record
	if _, err := fmt.Sscanf(string(data), "%d %d", &record.Pid, &record.Started); err != nil {
		return Record{}, fmt.Errorf("%s is not a process record: %w", path, err)
	}
	return record, nil
}

// Write keeps the record in a file.
func (r Record) Write(path string) error {
	return layout.WriteFile(path, fmt.Appendf(nil, "%d %d\n", r.Pid, r.Started), 0o644)
}

// Alive says whether the very process still runs; one that is only waiting to be reaped does not.
func (r Record) Alive() bool {
	if r.Pid <= 1 {
		return false
	}
	status, err := StatusOf(r.Pid)
	return err == nil && status.Started == r.Started && status.State != 'Z' && status.State != 'X'
}

// WaitReaped waits until ended processes have also left the process table. That is up to their parent, by now the machine's init,
// and some look for dead children only every few seconds; so running out of patience is no failure.
func WaitReaped(records []Record, patience time.Duration) {
	deadline := time.Now().Add(patience)
	for _, record := range records {
		for time.Now().Before(deadline) {
			status, err := StatusOf(record.Pid)
			if err != nil || status.Started != record.Started {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// Kill ends the process at once. The pidfd is opened before the start time is compared, so that the pid cannot change hands
// between the check and the signal.
func (r Record) Kill() error {
	if r.Pid <= 1 || r.Pid == os.Getpid() {
		return nil
	}
	descriptor, err := unix.PidfdOpen(r.Pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening process %d: %w", r.Pid, err)
	}
	defer unix.Close(descriptor)
	if !r.Alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(descriptor, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("ending process %d: %w", r.Pid, err)
	}
	return nil
}

// KillAll ends processes together and waits until they are gone.
func KillAll(records []Record, patience time.Duration) error {
	var failures []error
	for _, record := range records {
		failures = append(failures, record.Kill())
	}
	deadline := time.Now().Add(patience)
	for _, record := range records {
		for record.Alive() {
			if time.Now().After(deadline) {
				failures = append(failures, fmt.Errorf("process %d does not end; `cat /proc/%d/stack` may say what it waits for",
					record.Pid, record.Pid))
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return errors.Join(failures...)
}
