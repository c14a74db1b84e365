package image

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"bizra.io/cluster/internal/layout"
)

func writeArchive(t *testing.T, path, name, program string) {
	t.Helper()
	data, err := SingleProgram(name, "program", []byte(program))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestNamesOfAnArchive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "oci.tar")
	writeArchive(t, path, "localhost/pause:latest", "binary")
	archive, err := Open(path)
	if err != nil || !reflect.DeepEqual(archive.Names, []string{"localhost/pause:latest"}) || len(archive.Digest) != 64 {
		t.Errorf("got %+v, %v", archive, err)
	}
	docker, err := archiveOf(member{"manifest.json", []byte(`[{"RepoTags":["localhost/bizra:dev"]}]`), 0o644})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, docker, 0o644); err != nil {
		t.Fatal(err)
	}
	if archive, err = Open(path); err != nil || !reflect.DeepEqual(archive.Names, []string{"localhost/bizra:dev"}) {
		t.Errorf("got %+v, %v", archive, err)
	}
}

func archiveOf(members ...member) ([]byte, error) { return archive(members) }

func TestWhatIsNoArchiveIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	nameless, err := archiveOf(member{"manifest.json", []byte(`[{"RepoTags":null}]`), 0o644})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := archiveOf(member{"README", []byte("hello"), 0o644})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"text": []byte("hello"), "nameless": nameless, "other tar": foreign} {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if archive, err := Open(path); err == nil {
			t.Errorf("%s was taken for %+v", name, archive)
		}
	}
}

func TestANewerArchiveReplacesTheOlder(t *testing.T) {
	place := layout.Layout{Dir: t.TempDir()}
	source := filepath.Join(t.TempDir(), "image.tar")
	for _, program := range []string{"first", "second", "second"} {
		writeArchive(t, source, "localhost/bizra:dev", program)
		archive, err := Open(source)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Keep(place, archive); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
	writeArchive(t, source, "localhost/other:dev", "first")
	other, err := Open(source)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Keep(place, other); err != nil {
		t.Fatal(err)
	}
	kept, err := Kept(place)
	if err != nil || len(kept) != 2 || kept[1].Names[0] != "localhost/other:dev" {
		t.Errorf("kept %+v, %v", kept, err)
	}
}
