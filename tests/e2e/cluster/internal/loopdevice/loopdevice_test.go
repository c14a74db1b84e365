package loopdevice

import "testing"

func TestDevicesBelowAFolder(t *testing.T) {
	devices := []Device{{"/dev/loop0", "/state/volumes/a.xfs"}, {"/dev/loop1", "/state2/volumes/b.xfs"}, {"/dev/loop2", "/state"}}
	for _, folder := range []string{"/state", "/state/", "/state/volumes"} {
		found := Below(devices, folder)
		if len(found) != 1 || found[0].Path != "/dev/loop0" {
			t.Errorf("below %s: %v", folder, found)
		}
	}
}
