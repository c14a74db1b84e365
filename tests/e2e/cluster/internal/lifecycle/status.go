package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"bizra.io/cluster/internal/apiclient"
	"bizra.io/cluster/internal/controlplane"
	"bizra.io/cluster/internal/node"
)

// ErrUnhealthy says that a part of the cluster does not work; the report has said which.
var ErrUnhealthy = errors.New("the cluster is not healthy; `cluster up` heals it")

// Status prints every part of the cluster and fails if one of them is not well.
func (c *Cluster) Status(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	healthy := true
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PROCESS\tSTATE\tPID\tLOG")
	control := c.controlPlane()
	for _, name := range controlplane.Names {
		record, err := control.Record(name)
		state := "running"
		if err != nil || !record.Alive() {
			state, healthy = "not running", false
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", name, state, record.Pid, c.Layout.Log(name))
	}
	fmt.Fprintln(table)
	known := map[string]apiclient.Node{}
	client, err := apiclient.New(c.Layout, c.State.Addresses)
	if err == nil {
		var nodes []apiclient.Node
		nodes, err = client.Nodes(ctx)
		for _, one := range nodes {
			known[one.Name] = one
		}
	}
	fmt.Fprintln(table, "NODE\tSTATE\tADDRESS\tZONE\tPID 1\tDAEMONS (PIDS)")
	for _, place := range c.Layout.Nodes() {
		target, nodeErr := c.Node(place.Index)
		if nodeErr != nil {
			return nodeErr
		}
		state, running := describeNode(target, known[place.Name()])
		healthy = healthy && state == "Ready"
		record, _ := target.Init()
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\n", place.Name(), state, target.Address(), place.Zone(), record.Pid, running)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if err != nil {
		fmt.Fprintf(out, "\nthe API server does not answer: %v\n", err)
		return ErrUnhealthy
	}
	fmt.Fprintf(out, "\nAPI server %s, export KUBECONFIG=%s\n", c.State.Addresses.APIServer(), c.Layout.Kubeconfig())
	if !healthy {
		return ErrUnhealthy
	}
	return nil
}

func describeNode(target node.Node, known apiclient.Node) (state, daemons string) {
	if !target.On() {
		return "off", "-"
	}
	running := target.Running()
	var parts []string
	for _, daemon := range node.Daemons {
		pid, ok := running[daemon]
		if !ok {
			return "no " + daemon, strings.Join(parts, " ")
		}
		parts = append(parts, fmt.Sprintf("%s %d", daemon, pid))
	}
	daemons = strings.Join(parts, ", ")
	switch {
	case known.Name == "":
		return "unregistered", daemons
	case !known.Ready:
		return "NotReady", daemons
	case !known.Storage:
		return "no storage", daemons
	}
	return "Ready", daemons
}
