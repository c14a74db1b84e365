package csi

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"bizra.io/cluster/internal/loopdevice"
)

const mebibyte = 1 << 20

// smallestBytes is a little above what mkfs.xfs accepts (300 MiB).
const smallestBytes = 320 * mebibyte

// roundUp gives the size a volume really gets: whole MiB, and never less than XFS can be.
func roundUp(bytes int64) int64 {
	return max(smallestBytes, (bytes+mebibyte-1)/mebibyte*mebibyte)
}

// imageStore keeps the images of one node's volumes. Their files are sparse: they take what is written, not what is promised.
type imageStore struct {
	folder string
}

func (s *imageStore) path(volume string) (string, error) {
	if volume == "" || volume == "." || volume == ".." || strings.ContainsRune(volume, '/') {
		return "", fmt.Errorf("%q is not the name of a volume", volume)
	}
	return filepath.Join(s.folder, volume+".xfs"), nil
}

// create makes an image, or leaves the one that is there. It appears under its name only when it is whole.
func (s *imageStore) create(volume string, bytes int64) error {
	path, err := s.path(volume)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(temporary, bytes); err != nil {
		return err
	}
	if err := command("mkfs.xfs", "-q", "-f", temporary); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// grow makes an image, and the file system in it if it is mounted, at least so large.
func (s *imageStore) grow(volume string, bytes int64) error {
	path, err := s.path(volume)
	if err != nil {
		return err
	}
	information, err := os.Stat(path)
	if err != nil {
		return err
	}
	if information.Size() < bytes {
		if err := os.Truncate(path, bytes); err != nil {
			return err
		}
	}
	device, err := attached(path)
	if err != nil || device == "" {
		return err
	}
	if err := loopdevice.Refresh(device); err != nil {
		return err
	}
	entries, err := mounts()
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.source == device {
			return command("xfs_growfs", entry.point)
		}
	}
	return nil
}

// delete removes an image that is not in use.
func (s *imageStore) delete(volume string) error {
	path, err := s.path(volume)
	if err != nil {
		return err
	}
	device, err := attached(path)
	if err != nil {
		return err
	}
	if device != "" {
		return fmt.Errorf("volume %s is still in use on %s", volume, device)
	}
	for _, file := range []string{path, path + ".new"} {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// mount mounts an image, grown to its file's size if that changed while it was not mounted.
func (s *imageStore) mount(volume, target string) error {
	path, err := s.path(volume)
	if err != nil {
		return err
	}
	mounted, err := isMounted(target)
	if err != nil || mounted {
		return err
	}
	if err := os.MkdirAll(target, 0o750); err != nil {
		return err
	}
	device, err := loopdevice.Attach(path)
	if err != nil {
		return err
	}
	// The device is given back by the kernel with its last user: on failure below that is this file, else the mount.
	defer device.Close()
	// Blocks that are freed in the volume are freed in the image as well.
	if err := unix.Mount(device.Name(), target, "xfs", unix.MS_NOATIME, "discard"); err != nil {
		return fmt.Errorf("mounting %s (%s): %w", device.Name(), path, err)
	}
	if err := command("xfs_growfs", target); err != nil {
		return errors.Join(err, unmount(target))
	}
	return nil
}

// attached finds the loop device of an image.
func attached(path string) (string, error) {
	devices, err := loopdevice.List()
	for _, device := range devices {
		if device.Backing == path {
			return device.Path, nil
		}
	}
	return "", err
}

func command(name string, arguments ...string) error {
	output, err := exec.Command(name, arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, bytes.TrimSpace(output))
	}
	return nil
}
