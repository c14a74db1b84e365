package csi

import (
	"context"
	"errors"
	"fmt"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

// controller makes, grows and deletes the volumes of one node. Every node has one; each looks only at claims for which the
// scheduler chose its node, and at volumes that it made.
type controller struct {
	client  kubernetes.Interface
	node    string
	store   *imageStore
	factory informers.SharedInformerFactory
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
	events  record.EventRecorder
	queue   workqueue.TypedRateLimitingInterface[item]
}

// item is a claim (with a namespace) or a volume (without).
type item struct {
	namespace, name string
}

// Retries start quickly, since tests wait for them, and stay rare enough for an API server that is down.
const (
	firstRetry   = 50 * time.Millisecond
	slowestRetry = 5 * time.Second
)

func newController(client kubernetes.Interface, node string, store *imageStore) *controller {
	factory := informers.NewSharedInformerFactory(client, 0)
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcore.EventSinkImpl{Interface: client.CoreV1().Events("")})
	c := &controller{
		client: client, node: node, store: store, factory: factory,
		claims:  factory.Core().V1().PersistentVolumeClaims().Lister(),
		volumes: factory.Core().V1().PersistentVolumes().Lister(),
		classes: factory.Storage().V1().StorageClasses().Lister(),
		events:  broadcaster.NewRecorder(scheme.Scheme, core.EventSource{Component: Name, Host: node}),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[item](firstRetry, slowestRetry)),
	}
	return c
}

func (c *controller) run(ctx context.Context) error {
	enqueue := func(object any) {
		if deleted, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = deleted.Obj
		}
		if accessor, ok := object.(meta.Object); ok {
			c.queue.Add(item{accessor.GetNamespace(), accessor.GetName()})
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: enqueue, UpdateFunc: func(_, updated any) { enqueue(updated) }}
	for _, informer := range []cache.SharedIndexInformer{
		c.factory.Core().V1().PersistentVolumeClaims().Informer(), c.factory.Core().V1().PersistentVolumes().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	c.factory.Start(ctx.Done())
	for kind, synced := range c.factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("the list of %v did not arrive: %w", kind, context.Cause(ctx))
		}
	}
	klog.InfoS("Watching claims and volumes", "node", c.node)
	// One after the other: a node has a handful of volumes, and mkfs takes a fraction of a second.
	go func() {
		<-ctx.Done()
		c.queue.ShutDown()
	}()
	for {
		next, shutdown := c.queue.Get()
		if shutdown {
			return nil
		}
		if err := c.handle(ctx, next); err != nil {
			klog.ErrorS(err, "Trying again later", "namespace", next.namespace, "name", next.name)
			c.queue.AddRateLimited(next)
		} else {
			c.queue.Forget(next)
		}
		c.queue.Done(next)
	}
}

func (c *controller) handle(ctx context.Context, next item) error {
	if next.namespace == "" {
		return c.reclaim(ctx, next.name)
	}
	return errors.Join(c.provision(ctx, next), c.resize(ctx, next))
}

// mine says whether this driver on this node made the volume.
func (c *controller) mine(volume *core.PersistentVolume) bool {
	source := volume.Spec.CSI
	return source != nil && source.Driver == Name && source.VolumeAttributes[nodeAttribute] == c.node
}
