package csi

import (
	"context"
	"fmt"
	"slices"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

const (
	// selectedNode is the annotation by which the scheduler says where the claim's first Pod will run.
	selectedNode = "volume.kubernetes.io/selected-node"
	// provisionedBy makes the volume controller leave deletion to this driver.
	provisionedBy = "pv.kubernetes.io/provisioned-by"
	// nodeAttribute in a volume names the node that holds its image.
	nodeAttribute = Name + "/node"
	// finalizer keeps a volume object until its image is gone.
	finalizer = Name + "/image"
)

// provision makes the volume that a claim waits for on this node.
func (c *controller) provision(ctx context.Context, next item) error {
	claim, err := c.claims.PersistentVolumeClaims(next.namespace).Get(next.name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil || claim.Annotations[selectedNode] != c.node ||
		claim.Spec.StorageClassName == nil {
		return nil
	}
	class, err := c.classes.Get(*claim.Spec.StorageClassName)
	if apierrors.IsNotFound(err) || (err == nil && class.Provisioner != Name) {
		return nil
	}
	if err != nil {
		return err
	}
	if reason := refusal(claim); reason != "" {
		// Nothing to try again: a claim's modes and source never change.
		c.events.Event(claim, core.EventTypeWarning, "ProvisioningFailed", reason)
		return nil
	}
	volume := desiredVolume(claim, class, c.node)
	if _, err := c.volumes.Get(volume.Name); err == nil {
		return nil // made, and about to be bound
	}
	size := volume.Spec.Capacity[core.ResourceStorage]
	if err := c.store.create(volume.Name, size.Value()); err != nil {
		c.events.Eventf(claim, core.EventTypeWarning, "ProvisioningFailed", "making the image on %s: %v", c.node, err)
		return fmt.Errorf("making the image of %s: %w", volume.Name, err)
	}
	_, err = c.client.CoreV1().PersistentVolumes().Create(ctx, volume, meta.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating volume %s: %w", volume.Name, err)
	}
	requested := claim.Spec.Resources.Requests[core.ResourceStorage]
	note := ""
	if size.Cmp(requested) > 0 {
		note = fmt.Sprintf(" (%s was asked for; XFS needs %d MiB and volumes are whole MiB)", requested.String(), smallestBytes/mebibyte)
	}
	c.events.Eventf(claim, core.EventTypeNormal, "ProvisioningSucceeded", "made volume %s of %s on %s%s", volume.Name, size.String(),
		c.node, note)
	klog.InfoS("Made a volume", "volume", volume.Name, "claim", klog.KObj(claim), "size", size.String())
	return nil
}

// refusal says why a claim can never be served, or nothing.
func refusal(claim *core.PersistentVolumeClaim) string {
	for _, mode := range claim.Spec.AccessModes {
		if mode != core.ReadWriteOnce && mode != core.ReadWriteOncePod {
			return fmt.Sprintf("a volume lives on one node, so %s is not possible; use ReadWriteOnce or ReadWriteOncePod", mode)
		}
	}
	if claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == core.PersistentVolumeBlock {
		return "there are no raw block volumes; use volumeMode: Filesystem"
	}
	if claim.Spec.DataSource != nil || claim.Spec.DataSourceRef != nil {
		return "volumes cannot be made from snapshots or other claims"
	}
	return ""
}

func desiredVolume(claim *core.PersistentVolumeClaim, class *storage.StorageClass, node string) *core.PersistentVolume {
	name := "pvc-" + string(claim.UID)
	requested := claim.Spec.Resources.Requests[core.ResourceStorage]
	reclaim := core.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		reclaim = *class.ReclaimPolicy
	}
	mode := core.PersistentVolumeFilesystem
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{
			Name: name, Annotations: map[string]string{provisionedBy: Name}, Finalizers: []string{finalizer},
		},
		Spec: core.PersistentVolumeSpec{
			AccessModes:                   slices.Clone(claim.Spec.AccessModes),
			Capacity:                      core.ResourceList{core.ResourceStorage: *resource.NewQuantity(roundUp(requested.Value()), resource.BinarySI)},
			ClaimRef:                      &core.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID},
			MountOptions:                  class.MountOptions,
			PersistentVolumeReclaimPolicy: reclaim,
			StorageClassName:              class.Name,
			VolumeMode:                    &mode,
			PersistentVolumeSource: core.PersistentVolumeSource{CSI: &core.CSIPersistentVolumeSource{
				Driver: Name, VolumeHandle: name, FSType: "xfs", VolumeAttributes: map[string]string{nodeAttribute: node},
			}},
			NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{NodeSelectorTerms: []core.NodeSelectorTerm{{
				MatchExpressions: []core.NodeSelectorRequirement{{
					Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{node},
				}},
			}}}},
		},
	}
}

// reclaim deletes a volume whose claim is gone, as its policy says, and the image of a volume that is being deleted.
func (c *controller) reclaim(ctx context.Context, name string) error {
	volume, err := c.volumes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !c.mine(volume) {
		return nil
	}
	toDelete := volume.Spec.PersistentVolumeReclaimPolicy == core.PersistentVolumeReclaimDelete
	if volume.DeletionTimestamp == nil {
		if volume.Status.Phase != core.VolumeReleased || !toDelete {
			return nil
		}
		options := meta.DeleteOptions{Preconditions: &meta.Preconditions{UID: &volume.UID}}
		err := c.client.CoreV1().PersistentVolumes().Delete(ctx, name, options)
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting volume %s: %w", name, err)
		}
		return nil // its deletion time stamp brings it back here
	}
	if volume.Status.Phase == core.VolumeBound || !slices.Contains(volume.Finalizers, finalizer) {
		return nil
	}
	// With the policy Retain the image outlives the object.
	if toDelete {
		if err := c.store.delete(volume.Spec.CSI.VolumeHandle); err != nil {
			return fmt.Errorf("deleting the image of %s: %w", name, err)
		}
	}
	updated := volume.DeepCopy()
	updated.Finalizers = slices.DeleteFunc(updated.Finalizers, func(one string) bool { return one == finalizer })
	_, err = c.client.CoreV1().PersistentVolumes().Update(ctx, updated, meta.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("letting volume %s go: %w", name, err)
	}
	klog.InfoS("Deleted a volume", "volume", name, "imageDeleted", toDelete)
	return nil
}
