package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestStatusOfAProgramWithAnOddName(t *testing.T) {
	line := "42 (a ) b (c) S 7 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 98765 1000 10 18446744073709551615 0"
	status, err := ParseStatus(line)
	if err != nil || status.Name != "a ) b (c" || status.State != 'S' || status.Parent != 7 || status.Started != 98765 {
		t.Errorf("got %+v, %v", status, err)
	}
	for _, broken := range []string{"", "42 a S 7", "42 (a) S 7"} {
		if _, err := ParseStatus(broken); err == nil {
			t.Errorf("%q was accepted", broken)
		}
	}
}

func TestARecycledPidIsNeverKilled(t *testing.T) {
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	record, err := RecordOf(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	other := Record{Pid: record.Pid, Started: record.Started + 1}
	if other.Alive() {
		t.Error("another start time is another process")
	}
	if err := other.Kill(); err != nil {
		t.Error(err)
	}
	time.Sleep(20 * time.Millisecond)
	if !record.Alive() {
		t.Fatal("the process was killed by a record that is not its own")
	}
	if err := KillAll([]Record{record, {}}, time.Second); err != nil {
		t.Error(err)
	}
	if record.Alive() {
		t.Error("the process lives on")
	}
	_ = child.Wait()
}

func TestRecordsAreReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "record")
	if record, err := Read(path); err != nil || record.Alive() {
		t.Errorf("no file is no process: %v, %v", record, err)
	}
	own, err := RecordOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := own.Write(path); err != nil {
		t.Fatal(err)
	}
	if read, err := Read(path); err != nil || read != own || !read.Alive() {
		t.Errorf("wrote %v, read %v, %v", own, read, err)
	}
	if err := own.Kill(); err != nil {
		t.Errorf("a process does not kill itself: %v", err)
	}
}

func TestTheMarkIsAWholeVariable(t *testing.T) {
	environment := []byte("A=1\x00BIZRA_CLUSTER_INSTANCE=abc\x00B=2\x00")
	if !HasVariable(environment, []byte("BIZRA_CLUSTER_INSTANCE=abc")) {
		t.Error("not found")
	}
	for _, other := range []string{"BIZRA_CLUSTER_INSTANCE=ab", "CLUSTER_INSTANCE=abc", "BIZRA_CLUSTER_INSTANCE=abcd"} {
		if HasVariable(environment, []byte(other)) {
			t.Errorf("%s was found", other)
		}
	}
	if Marked("") != nil {
		t.Error("without an id nothing is marked")
	}
}
