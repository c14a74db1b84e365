package controlplane

import (
	"context"
	"embed"
	"fmt"

	"bizra.io/cluster/internal/apiclient"
)

//go:embed objects/*.yaml
var objects embed.FS

//go:embed audit-policy.yaml
var auditPolicy []byte

// paths says where in the API each file of objects/ belongs.
var paths = map[string]string{
	"dns-role.yaml":        "/apis/rbac.authorization.k8s.io/v1/clusterroles/bizra:dns",
	"dns-binding.yaml":     "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/bizra:dns",
	"storage-role.yaml":    "/apis/rbac.authorization.k8s.io/v1/clusterroles/bizra:storage",
	"storage-binding.yaml": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/bizra:storage",
	"policy-role.yaml":     "/apis/rbac.authorization.k8s.io/v1/clusterroles/bizra:policy",
	"policy-binding.yaml":  "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/bizra:policy",
	"csidriver.yaml":       "/apis/storage.k8s.io/v1/csidrivers/volumes.bizra.test",
	"storageclass.yaml":    "/apis/storage.k8s.io/v1/storageclasses/bizra-local",
}

// ApplyObjects gives the DNS server, the storage driver and the policy agents their rights, and the cluster its default StorageClass.
func ApplyObjects(ctx context.Context, client *apiclient.Client) error {
	for file, path := range paths {
		manifest, err := objects.ReadFile("objects/" + file)
		if err != nil {
			return err
		}
		if err := client.Apply(ctx, path, manifest); err != nil {
			return fmt.Errorf("applying %s: %w", file, err)
		}
	}
	return nil
}
