package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bizra.io/cluster/internal/layout"
)

// restartDelay is what a service manager would wait.
const restartDelay = time.Second

// supervisor starts daemons and reaps every child: its own, and the orphans that the kernel hands to pid 1, such as the shims of
// containers.
type supervisor struct {
	node layout.Node
	// mutex is held while a child is made, so that its end cannot be seen before it is known.
	mutex   sync.Mutex
	running map[int]daemon
}

type daemon struct {
	name      string
	arguments []string
}

func newSupervisor(node layout.Node) *supervisor {
	return &supervisor{node: node, running: map[int]daemon{}}
}

func (s *supervisor) start(name string, arguments ...string) {
	s.launch(daemon{name: name, arguments: arguments})
}

func (s *supervisor) launch(d daemon) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	pid, err := s.fork(d)
	if err != nil {
		fmt.Printf("starting %s: %v\n", d.name, err)
		time.AfterFunc(restartDelay, func() { s.launch(d) })
		return
	}
	fmt.Printf("%s runs as process %d of the node\n", d.name, pid)
	s.running[pid] = d
}

func (s *supervisor) fork(d daemon) (int, error) {
	path := s.node.Log(d.name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return 0, err
	}
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	// Not os/exec: its own wait for the child would race with the reaper's.
	process, err := os.StartProcess(d.arguments[0], d.arguments, &os.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, err
	}
	pid := process.Pid
	return pid, process.Release()
}

// reap never returns.
func (s *supervisor) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.ECHILD) {
			time.Sleep(50 * time.Millisecond)
		}
		if err != nil {
			continue
		}
		s.mutex.Lock()
		d, known := s.running[pid]
		delete(s.running, pid)
		s.mutex.Unlock()
		if known {
			fmt.Printf("%s (process %d of the node) ended with status %d, signal %d; starting it again\n",
				d.name, pid, status.ExitStatus(), status.Signal())
			time.AfterFunc(restartDelay, func() { s.launch(d) })
		}
	}
}
