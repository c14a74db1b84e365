package csi

import (
	"context"
	"fmt"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

// resize grows a volume to what its claim asks for. The driver is on the node, so it grows image, device and file system in one
// go; the kubelet has no part in it. A volume that is not mounted gets its larger file system with the next mount.
func (c *controller) resize(ctx context.Context, next item) error {
	claim, err := c.claims.PersistentVolumeClaims(next.namespace).Get(next.name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if claim.Status.Phase != core.ClaimBound || claim.DeletionTimestamp != nil {
		return nil
	}
	volume, err := c.volumes.Get(claim.Spec.VolumeName)
	if apierrors.IsNotFound(err) {
		return nil // the volume's own event comes later
	}
	if err != nil {
		return err
	}
	if !c.mine(volume) || volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.UID != claim.UID {
		return nil
	}
	requested := claim.Spec.Resources.Requests[core.ResourceStorage]
	capacity := volume.Spec.Capacity[core.ResourceStorage]
	if requested.Cmp(capacity) > 0 {
		size := *resource.NewQuantity(roundUp(requested.Value()), resource.BinarySI)
		if err := c.store.grow(volume.Spec.CSI.VolumeHandle, size.Value()); err != nil {
			c.events.Eventf(claim, core.EventTypeWarning, "VolumeResizeFailed", "growing to %s: %v", size.String(), err)
			return fmt.Errorf("growing %s: %w", volume.Name, err)
		}
		updated := volume.DeepCopy()
		updated.Spec.Capacity[core.ResourceStorage] = size
		if _, err := c.client.CoreV1().PersistentVolumes().Update(ctx, updated, meta.UpdateOptions{}); err != nil {
			return fmt.Errorf("writing the new size of %s: %w", volume.Name, err)
		}
		c.events.Eventf(claim, core.EventTypeNormal, "VolumeResizeSuccessful", "grown from %s to %s", capacity.String(), size.String())
		klog.InfoS("Grew a volume", "volume", volume.Name, "from", capacity.String(), "to", size.String())
		capacity = size
	}
	if known := claim.Status.Capacity[core.ResourceStorage]; known.Cmp(capacity) >= 0 {
		return nil
	}
	updated := claim.DeepCopy()
	if updated.Status.Capacity == nil {
		updated.Status.Capacity = core.ResourceList{}
	}
	updated.Status.Capacity[core.ResourceStorage] = capacity
	if _, err := c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, updated, meta.UpdateOptions{}); err != nil {
		return fmt.Errorf("writing the new size of claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return nil
}
