// Package loopdevice ties volume images to block devices. Every device is attached with the kernel's autoclear flag: it is given
// back when its last user goes, whether that is an unmount or a whole node that loses its power.
package loopdevice

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Device is a loop device with a file behind it.
type Device struct {
	// Path is /dev/loop<n>.
	Path string
	// Backing is the file, as the kernel names it; " (deleted)" is cut off.
	Backing string
}

// attempts bounds the race with others who also ask for a free device.
const attempts = 64

// Attach ties the file to a free device. The device stays attached only as long as somebody holds it, so the caller mounts it
// before closing what it gets.
func Attach(image string) (*os.File, error) {
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("this kernel or container offers no loop devices: %w", err)
	}
	defer control.Close()
	for range attempts {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("asking for a free loop device: %w", err)
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd()), Size: 512, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		copy(config.Info.File_name[:len(config.Info.File_name)-1], filepath.Base(image))
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		device.Close()
		// Another node was quicker.
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("tying %s to /dev/loop%d: %w", image, number, err)
		}
	}
	return nil, fmt.Errorf("no loop device for %s: others took every one of %d that were free", image, attempts)
}

// Refresh makes a device as large as its file has become.
func Refresh(device string) error {
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.IoctlSetInt(int(file.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("growing %s: %w", device, err)
	}
	return nil
}

// Detach gives back a device that lost its user without the kernel noticing.
func Detach(device string) error {
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.IoctlSetInt(int(file.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detaching %s: %w", device, err)
	}
	return nil
}

// List finds every attached device.
func List() ([]Device, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var devices []Device
	for _, file := range files {
		backing, err := os.ReadFile(file)
		if err != nil {
			continue // detached in the meantime
		}
		devices = append(devices, Device{
			Path:    "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(file))),
			Backing: strings.TrimSuffix(strings.TrimSpace(string(backing)), " (deleted)"),
		})
	}
	return devices, nil
}

// Below picks the devices whose file lies below a folder.
func Below(devices []Device, folder string) []Device {
	var found []Device
	for _, device := range devices {
		if strings.HasPrefix(device.Backing, strings.TrimSuffix(folder, "/")+"/") {
			found = append(found, device)
		}
	}
	return found
}

// Nodes names all loop devices of the machine, attached or not.
func Nodes() []string {
	paths, _ := filepath.Glob("/sys/block/loop*")
	names := make([]string, len(paths))
	for i, path := range paths {
		names[i] = filepath.Base(path)
	}
	return names
}

// Delete removes an unattached device that the kernel made on demand.
func Delete(name string) error {
	var number uintptr
	if _, err := fmt.Sscanf(name, "loop%d", &number); err != nil {
		return fmt.Errorf("%q is not a loop device", name)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	_, _, code := unix.Syscall(unix.SYS_IOCTL, control.Fd(), unix.LOOP_CTL_REMOVE, number)
	if code != 0 && code != unix.ENODEV {
		return fmt.Errorf("removing %s: %w", name, code)
	}
	return nil
}
