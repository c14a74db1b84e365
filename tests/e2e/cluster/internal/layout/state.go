package layout

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// State is what must be known to heal or remove a cluster that another run of the program started.
type State struct {
	// Instance is the random id in the environment of every process of this cluster.
	Instance string `json:"instance"`
	// Bin is the folder of binaries that the cluster was started from.
	Bin string `json:"bin"`
	// Boot is the machine's boot id: after a reboot nothing of the cluster runs any more.
	Boot string `json:"boot"`
	// Complete is false until the first `up` has come to its end.
	Complete  bool      `json:"complete"`
	Addresses Addresses `json:"addresses"`
	// CreatedFolders are mount points that did not exist on the machine before.
	CreatedFolders []string `json:"createdFolders"`
	// Sysctls are the machine's own values of settings that a kubelet changes.
	Sysctls map[string]string `json:"sysctls"`
	// LoopDevices existed before the cluster did.
	LoopDevices []string `json:"loopDevices"`
	// ForwardRule says that an iptables rule was needed for traffic between nodes.
	ForwardRule bool `json:"forwardRule"`
}

// NewInstance is a fresh random id.
func NewInstance() string {
	id := make([]byte, 12)
	rand.Read(id) //nolint:errcheck // never fails, by its documentation
	return hex.EncodeToString(id)
}

// ErrNoState says that no cluster is recorded in the state folder.
var ErrNoState = errors.New("no cluster is recorded")

// Load reads the state of the cluster.
func (l Layout) Load() (State, error) {
	data, err := os.ReadFile(l.Path("state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, ErrNoState
	}
	if err != nil {
		return State{}, fmt.Errorf("reading the cluster's state: %w", err)
	}
	var state State
	if err := json.Unmarshal(data, &state); err != nil {
		return State{}, fmt.Errorf("%s is not readable; run `cluster down`, then `cluster up`: %w", l.Path("state.json"), err)
	}
	return state, nil
}

// Save replaces the state in one step, so that an interrupted run leaves the old or the new one.
func (l Layout) Save(state State) error {
	data, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the cluster's state: %w", err)
	}
	return WriteFile(l.Path("state.json"), append(data, '\n'), 0o600)
}

// WriteFile replaces a file in one step and makes its folder.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, data, mode); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
