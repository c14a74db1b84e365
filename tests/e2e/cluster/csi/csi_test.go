package csi

import (
	"os"
	"reflect"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestVolumesAreWholeMebibytesAndNotTooSmallForXFS(t *testing.T) {
	for asked, given := range map[int64]int64{
		1: smallestBytes, smallestBytes: smallestBytes, smallestBytes + 1: smallestBytes + mebibyte, 1 << 30: 1 << 30,
	} {
		if got := roundUp(asked); got != given {
			t.Errorf("asked for %d, got %d, want %d", asked, got, given)
		}
	}
}

func claim(mode core.PersistentVolumeAccessMode) *core.PersistentVolumeClaim {
	return &core.PersistentVolumeClaim{
		ObjectMeta: meta.ObjectMeta{Namespace: "chain", Name: "data", UID: "1-2-3"},
		Spec: core.PersistentVolumeClaimSpec{
			AccessModes: []core.PersistentVolumeAccessMode{mode},
			Resources:   core.VolumeResourceRequirements{Requests: core.ResourceList{core.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
}

func TestAVolumeIsTiedToItsClaimAndNode(t *testing.T) {
	retain := core.PersistentVolumeReclaimRetain
	class := &storage.StorageClass{ObjectMeta: meta.ObjectMeta{Name: "bizra-local"}, ReclaimPolicy: &retain}
	volume := desiredVolume(claim(core.ReadWriteOncePod), class, "node3")
	size := volume.Spec.Capacity[core.ResourceStorage]
	if volume.Name != "pvc-1-2-3" || size.String() != "1Gi" || volume.Spec.PersistentVolumeReclaimPolicy != retain {
		t.Errorf("got %+v", volume)
	}
	if volume.Spec.ClaimRef.UID != "1-2-3" || volume.Spec.ClaimRef.Namespace != "chain" {
		t.Errorf("claim %+v", volume.Spec.ClaimRef)
	}
	term := volume.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0]
	if term.Key != core.LabelHostname || !reflect.DeepEqual(term.Values, []string{"node3"}) {
		t.Errorf("affinity %+v", term)
	}
	if !(&controller{node: "node3"}).mine(volume) || (&controller{node: "node2"}).mine(volume) {
		t.Error("a volume belongs to the driver of its node only")
	}
}

func TestWhatCannotBeServedIsRefusedWithAReason(t *testing.T) {
	for _, mode := range []core.PersistentVolumeAccessMode{core.ReadWriteOnce, core.ReadWriteOncePod} {
		if reason := refusal(claim(mode)); reason != "" {
			t.Errorf("%s was refused: %s", mode, reason)
		}
	}
	if reason := refusal(claim(core.ReadWriteMany)); !strings.Contains(reason, "ReadWriteMany") {
		t.Errorf("reason: %q", reason)
	}
	block := claim(core.ReadWriteOnce)
	mode := core.PersistentVolumeBlock
	block.Spec.VolumeMode = &mode
	if refusal(block) == "" {
		t.Error("a block volume was not refused")
	}
}

func TestImageNamesStayInTheirFolder(t *testing.T) {
	store := &imageStore{folder: t.TempDir()}
	for _, bad := range []string{"", ".", "..", "../etc/passwd", "a/b"} {
		if err := store.delete(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	path, err := store.path("pvc-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// Twice: deleting what is gone is a success.
	for range 2 {
		if err := store.delete("pvc-1"); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the image is still there: %v", err)
	}
}

func TestMountTableIsReadWithItsEscapes(t *testing.T) {
	got := parseMounts("40 1 7:2 / /var/lib/a\\040b rw shared:3 - xfs /dev/loop2 rw\nnot a line\n")
	if !reflect.DeepEqual(got, []mountEntry{{point: "/var/lib/a b", source: "/dev/loop2"}}) {
		t.Errorf("got %+v", got)
	}
}
