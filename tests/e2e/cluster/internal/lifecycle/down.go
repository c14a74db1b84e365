package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"bizra.io/cluster/internal/cleanup"
	"bizra.io/cluster/internal/image"
)

// Down removes the cluster and everything it left on the machine, and says what it looked for.
func (c *Cluster) Down() error {
	if os.Geteuid() != 0 {
		return errors.New("removing the cluster needs root: run this with sudo")
	}
	if err := c.refuseOther(); err != nil {
		return err
	}
	swept := cleanup.Sweep(c.Layout, c.State, c.Hierarchies)
	findings, err := cleanup.Inspect(c.Layout, c.State, c.Hierarchies)
	if err != nil {
		return errors.Join(swept, err)
	}
	var kinds, left []string
	for _, finding := range findings {
		kinds = append(kinds, finding.Kind)
		for _, item := range finding.Left {
			left = append(left, fmt.Sprintf("%s: %s", finding.Kind, item))
		}
	}
	if swept != nil || len(left) > 0 {
		return errors.Join(swept, fmt.Errorf("left on the machine:\n  %s", strings.Join(left, "\n  ")))
	}
	c.progress.say("the cluster is down; nothing left among: %s", strings.Join(kinds, ", "))
	return nil
}

// NodeOff takes a node's power.
func (c *Cluster) NodeOff(index int) error {
	target, err := c.Node(index)
	if err != nil {
		return err
	}
	if err := target.Stop(); err != nil {
		return err
	}
	c.progress.say("%s is off", target.Name())
	return nil
}

// NodeOn gives a node its power back.
func (c *Cluster) NodeOn(ctx context.Context, index int) error {
	target, err := c.Node(index)
	if err != nil {
		return err
	}
	archives, err := image.Kept(c.Layout)
	if err != nil {
		return err
	}
	fresh, err := c.ensureNode(ctx, target, archives)
	if err != nil {
		return err
	}
	if fresh {
		c.progress.say("%s is on", target.Name())
	} else {
		c.progress.say("%s was on already", target.Name())
	}
	return nil
}

// NodeExec replaces this program by a command inside a node.
func (c *Cluster) NodeExec(index int, command []string) error {
	target, err := c.Node(index)
	if err != nil {
		return err
	}
	record, err := target.Init()
	if err != nil {
		return err
	}
	if !record.Alive() {
		return fmt.Errorf("%s is off; `cluster node-on %d` gives it power", target.Name(), index)
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return fmt.Errorf("entering a node needs nsenter, of the package util-linux: %w", err)
	}
	arguments := append([]string{nsenter, "--target", fmt.Sprint(record.Pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--"},
		command...)
	return unix.Exec(nsenter, arguments, os.Environ())
}
