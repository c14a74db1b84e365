// Package csi is the storage driver of the test cluster. Every volume is an XFS image file of its own on a loop device, so it has a
// size, can be full and can grow. One process on each node does it all: it is the CSI driver that the kubelet calls, it registers
// itself there, and it makes, grows and deletes the volumes of its node by watching the API server (what the provisioner, resizer
// and registrar do beside other drivers).
package csi

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Name is the name of the driver and of the provisioner in its StorageClass.
const Name = "volumes.bizra.test"

// Main runs the driver until it is told to end, and returns the exit code.
func Main(arguments []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, arguments); err != nil {
		fmt.Fprintf(os.Stderr, "csi-driver: %v\n", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("csi-driver", flag.ContinueOnError)
	node := flags.String("node", "", "name of the node this runs on")
	folder := flags.String("volumes", "", "folder of the node's volume images")
	kubeconfig := flags.String("kubeconfig", "", "how to reach the API server")
	kubelet := flags.String("kubelet-dir", "/var/lib/kubelet", "the kubelet's root folder")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *node == "" || *folder == "" || *kubeconfig == "" {
		return errors.New("--node, --volumes and --kubeconfig are needed")
	}
	if err := os.MkdirAll(*folder, 0o700); err != nil {
		return fmt.Errorf("making the folder of volumes: %w", err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return fmt.Errorf("reading %s: %w", *kubeconfig, err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making an API client: %w", err)
	}
	store := &imageStore{folder: *folder}
	socket := filepath.Join(*kubelet, "plugins", Name, "csi.sock")

	failed := make(chan error, 3)
	server, err := serve(socket, failed, func(server *grpc.Server) {
		csi.RegisterIdentityServer(server, &identityService{})
		csi.RegisterNodeServer(server, &nodeService{node: *node, store: store})
	})
	if err != nil {
		return err
	}
	defer server.Stop()
	// Only now: the kubelet calls the driver as soon as it finds the registration.
	registrar, err := serve(filepath.Join(*kubelet, "plugins_registry", Name+"-reg.sock"), failed, func(server *grpc.Server) {
		registration.RegisterRegistrationServer(server, &registrationService{endpoint: socket})
	})
	if err != nil {
		return err
	}
	defer registrar.Stop()
	go func() { failed <- newController(client, *node, store).run(ctx) }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// serve listens on a socket; an old one of a driver that was killed is in the way.
func serve(socket string, failed chan<- error, register func(*grpc.Server)) (*grpc.Server, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
		return nil, err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(logFailures))
	register(server)
	go func() { failed <- server.Serve(listener) }()
	return server, nil
}

func logFailures(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	answer, err := handle(ctx, request)
	if err != nil {
		klog.ErrorS(err, "A call failed", "method", info.FullMethod)
	}
	return answer, err
}
