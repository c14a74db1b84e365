// Package image makes the one image the cluster itself needs, and loads archives into the nodes: there is no registry.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// SingleProgram makes an OCI archive of an image whose only content is one static program.
func SingleProgram(name, path string, program []byte) ([]byte, error) {
	layer, err := archive([]member{{path, program, 0o755}})
	if err != nil {
		return nil, err
	}
	layerDigest := digest(layer)
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/" + path}, "User": "65535:65535"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layerDigest}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": descriptor{"application/vnd.oci.image.config.v1+json", digest(config), len(config), nil},
		"layers": []descriptor{{"application/vnd.oci.image.layer.v1.tar", layerDigest, len(layer), nil}},
	})
	if err != nil {
		return nil, err
	}
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"manifests": []descriptor{{"application/vnd.oci.image.manifest.v1+json", digest(manifest), len(manifest),
			map[string]string{nameAnnotation: name}}},
	})
	if err != nil {
		return nil, err
	}
	members := []member{{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644}, {"index.json", index, 0o644}}
	for _, blob := range [][]byte{layer, config, manifest} {
		members = append(members, member{"blobs/sha256/" + digest(blob)[len("sha256:"):], blob, 0o644})
	}
	return archive(members)
}

type member struct {
	name string
	data []byte
	mode int64
}

func archive(members []member) ([]byte, error) {
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for _, m := range members {
		if err := writer.WriteHeader(&tar.Header{Name: m.name, Size: int64(len(m.data)), Mode: m.mode}); err != nil {
			return nil, fmt.Errorf("archiving %s: %w", m.name, err)
		}
		if _, err := writer.Write(m.data); err != nil {
			return nil, fmt.Errorf("archiving %s: %w", m.name, err)
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
