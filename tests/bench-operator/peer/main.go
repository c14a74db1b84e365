// Command peer is a Go operator of the same shape as this project's: an owner (Fleet) has children (Member), and each child
// has a volume claim, a ConfigMap and a pod. It is written as the documentation of controller-runtime teaches, with ten
// workers for each kind and no client-side limit, and does nothing else: no certificates, no questions to nodes, no quorum.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// Fleet owns members.
type Fleet struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata,omitempty"`
	Spec            struct {
		Replicas int `json:"replicas"`
	} `json:"spec"`
	Status struct {
		Ready int `json:"ready"`
	} `json:"status,omitempty"`
}

// Member owns a pod and what the pod needs.
type Member struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata,omitempty"`
	Status          struct {
		Ready bool `json:"ready"`
	} `json:"status,omitempty"`
}

// FleetList is a list.
type FleetList struct {
	meta.TypeMeta `json:",inline"`
	meta.ListMeta `json:"metadata,omitempty"`
	Items         []Fleet `json:"items"`
}

// MemberList is a list.
type MemberList struct {
	meta.TypeMeta `json:",inline"`
	meta.ListMeta `json:"metadata,omitempty"`
	Items         []Member `json:"items"`
}

func (in *Fleet) DeepCopyObject() runtime.Object {
	out := *in
	out.ObjectMeta = *in.ObjectMeta.DeepCopy()
	return &out
}

func (in *Member) DeepCopyObject() runtime.Object {
	out := *in
	out.ObjectMeta = *in.ObjectMeta.DeepCopy()
	return &out
}

func (in *FleetList) DeepCopyObject() runtime.Object {
	out := FleetList{TypeMeta: in.TypeMeta, ListMeta: *in.ListMeta.DeepCopy()}
	for index := range in.Items {
		out.Items = append(out.Items, *in.Items[index].DeepCopyObject().(*Fleet))
	}
	return &out
}

func (in *MemberList) DeepCopyObject() runtime.Object {
	out := MemberList{TypeMeta: in.TypeMeta, ListMeta: *in.ListMeta.DeepCopy()}
	for index := range in.Items {
		out.Items = append(out.Items, *in.Items[index].DeepCopyObject().(*Member))
	}
	return &out
}

type fleets struct{ client.Client }

func (r fleets) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var fleet Fleet
	if err := r.Get(ctx, request.NamespacedName, &fleet); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	var members MemberList
	if err := r.List(ctx, &members, client.InNamespace(fleet.Namespace)); err != nil {
		return ctrl.Result{}, err
	}
	known, ready := map[string]bool{}, 0
	for _, member := range members.Items {
		known[member.Name] = true
		if member.Status.Ready {
			ready++
		}
	}
	for number := range fleet.Spec.Replicas {
		name := fmt.Sprintf("%s-%d", fleet.Name, number)
		if !known[name] {
			member := &Member{ObjectMeta: meta.ObjectMeta{Name: name, Namespace: fleet.Namespace}}
			if err := create(ctx, r.Client, &fleet, member); err != nil {
				return ctrl.Result{}, err
			}
		}
	}
	if fleet.Status.Ready == ready {
		return ctrl.Result{}, nil
	}
	fleet.Status.Ready = ready
	return ctrl.Result{}, r.Status().Update(ctx, &fleet)
}

type members struct{ client.Client }

func (r members) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var member Member
	if err := r.Get(ctx, request.NamespacedName, &member); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	object := meta.ObjectMeta{
		Name: member.Name, Namespace: member.Namespace, Labels: map[string]string{"peer.bizra.io/member": member.Name},
	}
	claim := &core.PersistentVolumeClaim{ObjectMeta: object, Spec: core.PersistentVolumeClaimSpec{
		AccessModes: []core.PersistentVolumeAccessMode{core.ReadWriteOncePod},
		Resources: core.VolumeResourceRequirements{
			Requests: core.ResourceList{core.ResourceStorage: resource.MustParse("10Gi")},
		},
	}}
	config := &core.ConfigMap{ObjectMeta: object, Data: map[string]string{"node.toml": "node_name = \"" + member.Name + "\"\n"}}
	pod := &core.Pod{ObjectMeta: object, Spec: core.PodSpec{
		Containers: []core.Container{{
			Name: "node", Image: "localhost/bizra:dev",
			VolumeMounts: []core.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "config", MountPath: "/config"}},
		}},
		Volumes: []core.Volume{
			{Name: "data", VolumeSource: core.VolumeSource{
				PersistentVolumeClaim: &core.PersistentVolumeClaimVolumeSource{ClaimName: member.Name}}},
			{Name: "config", VolumeSource: core.VolumeSource{ConfigMap: &core.ConfigMapVolumeSource{
				LocalObjectReference: core.LocalObjectReference{Name: member.Name}}}},
		},
	}}
	ready := false
	for _, child := range []client.Object{claim, config, pod} {
		live := child.DeepCopyObject().(client.Object)
		err := r.Get(ctx, request.NamespacedName, live)
		if errors.IsNotFound(err) {
			err = create(ctx, r.Client, &member, child)
		} else if live, isPod := live.(*core.Pod); isPod {
			for _, condition := range live.Status.Conditions {
				ready = ready || condition.Type == core.PodReady && condition.Status == core.ConditionTrue
			}
		}
		if err != nil {
			return ctrl.Result{}, err
		}
	}
	if member.Status.Ready == ready {
		return ctrl.Result{}, nil
	}
	member.Status.Ready = ready
	return ctrl.Result{}, r.Status().Update(ctx, &member)
}

// create creates a child unless it is there.
func create(ctx context.Context, c client.Client, owner, child client.Object) error {
	if err := ctrl.SetControllerReference(owner, child, c.Scheme()); err != nil {
		return err
	}
	return client.IgnoreAlreadyExists(c.Create(ctx, child))
}

func main() {
	address := flag.String("metrics", "127.0.0.1:8080", "address of /metrics")
	flag.Parse()
	ctrl.SetLogger(zap.New())
	version := schema.GroupVersion{Group: "peer.bizra.io", Version: "v1"}
	scheme.Scheme.AddKnownTypes(version, &Fleet{}, &FleetList{}, &Member{}, &MemberList{})
	meta.AddToGroupVersion(scheme.Scheme, version)
	config := ctrl.GetConfigOrDie()
	config.QPS = -1
	manager, err := ctrl.NewManager(config, ctrl.Options{Metrics: server.Options{BindAddress: *address}})
	check(err)
	workers := controller.Options{MaxConcurrentReconciles: 10}
	check(ctrl.NewControllerManagedBy(manager).For(&Fleet{}).Owns(&Member{}).WithOptions(workers).
		Complete(fleets{manager.GetClient()}))
	check(ctrl.NewControllerManagedBy(manager).For(&Member{}).Owns(&core.Pod{}).Owns(&core.ConfigMap{}).
		Owns(&core.PersistentVolumeClaim{}).WithOptions(workers).Complete(members{manager.GetClient()}))
	check(manager.Start(ctrl.SetupSignalHandler()))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}
