package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// nameAnnotation is where an OCI archive keeps the full name of an image.
const nameAnnotation = "io.containerd.image.name"

// referenceAnnotation is where other tools keep it; some only write the tag.
const referenceAnnotation = "org.opencontainers.image.ref.name"

// Archive is a file with images.
type Archive struct {
	Path string
	// Digest is of the whole file.
	Digest string
	Names  []string
}

// Open reads an archive's digest and the names of its images.
func Open(path string) (Archive, error) {
	file, err := os.Open(path)
	if err != nil {
		return Archive{}, fmt.Errorf("opening the image archive: %w", err)
	}
	defer file.Close()
	hash := sha256.New()
	names, err := imageNames(io.TeeReader(file, hash))
	if err != nil {
		return Archive{}, fmt.Errorf("%s is not an OCI or Docker image archive (an uncompressed tar): %w", path, err)
	}
	if _, err := io.Copy(hash, file); err != nil {
		return Archive{}, fmt.Errorf("reading %s: %w", path, err)
	}
	if len(names) == 0 {
		return Archive{}, fmt.Errorf("%s holds no image with a full name; give it one, such as localhost/bizra:dev", path)
	}
	return Archive{Path: path, Digest: hex.EncodeToString(hash.Sum(nil)), Names: names}, nil
}

func imageNames(stream io.Reader) ([]string, error) {
	var names []string
	known := false
	reader := tar.NewReader(stream)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		switch header.Name {
		case "index.json":
			known = true
			var index struct{ Manifests []descriptor }
			if err := json.NewDecoder(reader).Decode(&index); err != nil {
				return nil, fmt.Errorf("index.json: %w", err)
			}
			for _, manifest := range index.Manifests {
				for _, key := range []string{nameAnnotation, referenceAnnotation} {
					if name := manifest.Annotations[key]; name != "" {
						names = append(names, name)
						break
					}
				}
			}
		case "manifest.json":
			known = true
			var manifests []struct{ RepoTags []string }
			if err := json.NewDecoder(reader).Decode(&manifests); err != nil {
				return nil, fmt.Errorf("manifest.json: %w", err)
			}
			for _, manifest := range manifests {
				names = append(names, manifest.RepoTags...)
			}
		}
	}
	if !known {
		return nil, errors.New("neither index.json nor manifest.json is in it")
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
