package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"bizra.io/cluster/internal/layout"
	"bizra.io/cluster/internal/node"
	"bizra.io/cluster/internal/process"
)

// Keep copies an archive into the state folder, so that a node that is off now gets it when it is on again. Older archives of the
// same images go.
func Keep(place layout.Layout, archive Archive) (Archive, error) {
	kept, err := Kept(place)
	if err != nil {
		return Archive{}, err
	}
	for _, old := range kept {
		if old.Digest == archive.Digest {
			return old, nil
		}
	}
	target := place.Path("images", archive.Digest+".tar")
	if err := copyFile(archive.Path, target); err != nil {
		return Archive{}, fmt.Errorf("keeping a copy of %s: %w", archive.Path, err)
	}
	for _, old := range kept {
		if slices.Equal(old.Names, archive.Names) {
			if err := os.Remove(old.Path); err != nil {
				return Archive{}, err
			}
		}
	}
	archive.Path = target
	return archive, nil
}

// Kept lists the archives in the state folder, oldest first.
func Kept(place layout.Layout) ([]Archive, error) {
	paths, err := filepath.Glob(place.Path("images", "*.tar"))
	if err != nil {
		return nil, err
	}
	age := func(path string) int64 {
		information, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return information.ModTime().UnixNano()
	}
	slices.SortFunc(paths, func(a, b string) int { return int(min(1, max(-1, age(a)-age(b)))) })
	var archives []Archive
	for _, path := range paths {
		archive, err := Open(path)
		if err != nil {
			return nil, err
		}
		archives = append(archives, archive)
	}
	return archives, nil
}

func copyFile(source, target string) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	from, err := os.Open(source)
	if err != nil {
		return err
	}
	defer from.Close()
	temporary, err := os.Create(target + ".new")
	if err != nil {
		return err
	}
	defer temporary.Close()
	if _, err := io.Copy(temporary, from); err != nil {
		return err
	}
	if err := temporary.Close(); err != nil {
		return err
	}
	return os.Rename(target+".new", target)
}

// Load imports an archive into one node and says whether it was needed: a node that has these very images is left alone.
func Load(ctx context.Context, target node.Node, archive Archive) (bool, error) {
	loaded, err := loadedImages(target.Path("images.json"))
	if err != nil {
		return false, err
	}
	present := true
	for _, name := range archive.Names {
		present = present && loaded[name] == archive.Digest
	}
	if present {
		return false, nil
	}
	socket, err := target.Socket()
	if err != nil {
		return false, err
	}
	command := exec.CommandContext(ctx, target.Layout.Binary("ctr"), "--address", socket, "--namespace", "k8s.io",
		"images", "import", "--snapshotter", "overlayfs", archive.Path)
	// With the cluster's mark, so that it is found if this program is killed before it ends.
	command.Env = process.Environment(target.Layout, target.State.Instance)
	if output, err := command.CombinedOutput(); err != nil {
		return false, fmt.Errorf("loading %s into %s (see %s): %w: %s", archive.Path, target.Name(), target.Log("containerd"), err,
			strings.TrimSpace(string(output)))
	}
	for _, name := range archive.Names {
		loaded[name] = archive.Digest
	}
	data, err := json.Marshal(loaded)
	if err != nil {
		return false, err
	}
	return true, layout.WriteFile(target.Path("images.json"), data, 0o644)
}

// loadedImages maps the names of a node's images to the digest of the archive they came from.
func loadedImages(path string) (map[string]string, error) {
	loaded := map[string]string{}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return loaded, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &loaded); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return loaded, nil
}
