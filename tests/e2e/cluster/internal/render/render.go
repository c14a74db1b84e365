// Package render writes the configuration files of the cluster's programs from the layout. It only computes text.
package render

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"text/template"

	"bizra.io/cluster/internal/layout"
)

//go:embed templates/*
var files embed.FS

var templates = template.Must(template.New("").Option("missingkey=error").ParseFS(files, "templates/*"))

// Node is what the files of a node are made from.
type Node struct {
	layout.Node
	Addresses layout.Addresses
	// Runc is the path of the program that makes containers.
	Runc string
	// ReservedMillicores and ReservedMebibytes are kept from the scheduler, so that five nodes do not promise the machine five times.
	ReservedMillicores, ReservedMebibytes int
}

func execute(name string, data any) ([]byte, error) {
	var text bytes.Buffer
	if err := templates.ExecuteTemplate(&text, name, data); err != nil {
		return nil, fmt.Errorf("rendering %s: %w", name, err)
	}
	return text.Bytes(), nil
}

// Containerd renders containerd's configuration.
func (n Node) Containerd() ([]byte, error) { return execute("containerd.toml", n) }

// Kubelet renders the kubelet's configuration.
func (n Node) Kubelet() ([]byte, error) { return execute("kubelet.yaml", n) }

// PodNetwork renders the CNI configuration.
func (n Node) PodNetwork() ([]byte, error) { return execute("pods.conflist", n) }

// Socket and Pause are constants that templates need.
func (n Node) Socket() string { return layout.ContainerdSocket }

// Pause is the sandbox image.
func (n Node) Pause() string { return layout.PauseImage }

// PodRange is the range of the node's Pods.
func (n Node) PodRange() string { return n.Addresses.PodsOf(n.Index).String() }

// Address is the node's own address.
func (n Node) Address() string { return n.Addresses.Node(n.Index).String() }

// Write renders all files of the node into its folder.
func (n Node) Write() error {
	for path, make := range map[string]func() ([]byte, error){
		n.Path("containerd.toml"):      n.Containerd,
		n.Path("kubelet.yaml"):         n.Kubelet,
		n.Path("cni", "pods.conflist"): n.PodNetwork,
	} {
		text, err := make()
		if err != nil {
			return err
		}
		if err := layout.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Corefile renders the DNS server's configuration.
func Corefile(place layout.Layout, addresses layout.Addresses) ([]byte, error) {
	return execute("Corefile", map[string]string{
		"Bridge":     addresses.Bridge().String(),
		"Kubeconfig": place.Path("dns.kubeconfig"),
	})
}

// Kubeconfig renders a kubeconfig with everything inside.
func Kubeconfig(server string, authority, certificate, key []byte) ([]byte, error) {
	encode := base64.StdEncoding.EncodeToString
	return execute("kubeconfig", map[string]string{
		"Server": server, "Authority": encode(authority), "Certificate": encode(certificate), "Key": encode(key),
	})
}

// Reserve computes what a node must keep back of a machine, so that the nodes together promise about as much as there is: a
// core to each (tests ask for more processor time than they use), and an equal share of the memory after 3 GiB for the cluster's
// own processes.
func Reserve(cores, mebibytes int) (millicoresKept, mebibytesKept int) {
	const ownMebibytes = 3072
	share := max(512, (mebibytes-ownMebibytes)/layout.NodeCount)
	return max(0, cores*1000-1000), max(0, mebibytes-share)
}
