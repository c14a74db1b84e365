// Command cluster runs a real Kubernetes of five nodes on one machine, for tests: see README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"bizra.io/cluster/internal/layout"
	"bizra.io/cluster/internal/lifecycle"
	"bizra.io/cluster/internal/node"
)

const usage = `cluster runs a real Kubernetes of five nodes on this machine, for tests.

  cluster up                  start it, or heal what is missing of it
  cluster down                remove it and everything it left
  cluster status              show every part; fails if one is not well
  cluster load-image <tar>    load an OCI or Docker image archive into every node
  cluster node-off <i>        take the power of node i (0-4); its disk stays
  cluster node-on <i>         give node i its power back
  cluster node-exec <i> <command...>   run a command inside node i
  cluster kubeconfig          print the path of the administrator's kubeconfig
  cluster logs                print the folders that hold the logs

Environment:
  BIZRA_CLUSTER_DIR   state folder (default $HOME/.cache/bizra/cluster/run)
  BIZRA_CLUSTER_BIN   folder of the binaries made by build.sh (default: where this program is)
`

func main() {
	// What the caller left open (a lock of a script, the pipes of make) must not stay open in programs that outlive it.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) // older kernels than 5.11 cannot; then nothing is lost but that
	if len(os.Args) > 1 && os.Args[1] == node.InitCommand {
		fail(node.Init(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
	os.Exit(1)
}

// command is one sub-command.
type command struct {
	// arguments is the exact number; -1 means a node and a command line.
	arguments int
	// running says that there must be a cluster; changing, that nobody else may work on it meanwhile.
	running, changing bool
	run               func(ctx context.Context, cluster *lifecycle.Cluster, arguments []string, out io.Writer) error
}

var commands = map[string]command{
	"up": {0, false, true, func(ctx context.Context, cluster *lifecycle.Cluster, _ []string, _ io.Writer) error {
		return cluster.Up(ctx)
	}},
	"down": {0, false, true, func(_ context.Context, cluster *lifecycle.Cluster, _ []string, _ io.Writer) error {
		return cluster.Down()
	}},
	"status": {0, true, false, func(ctx context.Context, cluster *lifecycle.Cluster, _ []string, out io.Writer) error {
		return cluster.Status(ctx, out)
	}},
	"load-image": {1, true, true, func(ctx context.Context, cluster *lifecycle.Cluster, arguments []string, _ io.Writer) error {
		return cluster.LoadImage(ctx, arguments[0])
	}},
	"node-off": {1, true, true, withNode(func(_ context.Context, cluster *lifecycle.Cluster, index int, _ []string) error {
		return cluster.NodeOff(index)
	})},
	"node-on": {1, true, true, withNode(func(ctx context.Context, cluster *lifecycle.Cluster, index int, _ []string) error {
		return cluster.NodeOn(ctx, index)
	})},
	"node-exec": {-1, true, false, withNode(func(_ context.Context, cluster *lifecycle.Cluster, index int, rest []string) error {
		return cluster.NodeExec(index, rest)
	})},
	"kubeconfig": {0, true, false, func(_ context.Context, cluster *lifecycle.Cluster, _ []string, out io.Writer) error {
		_, err := fmt.Fprintln(out, cluster.Layout.Kubeconfig())
		return err
	}},
	"logs": {0, true, false, func(_ context.Context, cluster *lifecycle.Cluster, _ []string, out io.Writer) error {
		for _, folder := range cluster.LogFolders() {
			if _, err := fmt.Fprintln(out, folder); err != nil {
				return err
			}
		}
		return nil
	}},
}

func withNode(run func(context.Context, *lifecycle.Cluster, int, []string) error) func(context.Context, *lifecycle.Cluster, []string, io.Writer) error {
	return func(ctx context.Context, cluster *lifecycle.Cluster, arguments []string, _ io.Writer) error {
		index, err := strconv.Atoi(arguments[0])
		if err != nil {
			return fmt.Errorf("%q is not the number of a node (0 to %d)", arguments[0], layout.NodeCount-1)
		}
		return run(ctx, cluster, index, arguments[1:])
	}
}

func run(ctx context.Context, arguments []string, out io.Writer) error {
	if len(arguments) == 0 || arguments[0] == "help" || arguments[0] == "--help" || arguments[0] == "-h" {
		_, err := io.WriteString(out, usage)
		return err
	}
	chosen, ok := commands[arguments[0]]
	rest := arguments[1:]
	if !ok || (chosen.arguments >= 0 && len(rest) != chosen.arguments) || (chosen.arguments < 0 && len(rest) < 2) {
		return fmt.Errorf("not understood: %q\n\n%s", arguments, usage)
	}
	cluster, err := lifecycle.New(out)
	if errors.Is(err, layout.ErrNoState) && chosen.running {
		return fmt.Errorf("no cluster in %s; start one with `cluster up`", cluster.Layout.Dir)
	}
	if cluster == nil {
		return err
	}
	if err != nil && chosen.running {
		return err
	}
	if chosen.changing {
		unlock, err := cluster.Lock()
		if err != nil {
			return err
		}
		defer unlock()
	}
	return chosen.run(ctx, cluster, rest, out)
}
