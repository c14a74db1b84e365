// Package apiclient asks the API server the few things that starting and watching the cluster needs. It is plain HTTP: the full
// client library would make this program twenty times larger.
package apiclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"bizra.io/cluster/internal/layout"
)

// Client speaks to the API server as the administrator.
type Client struct {
	server string
	http   *http.Client
}

// New uses the certificates in the state folder.
func New(place layout.Layout, addresses layout.Addresses) (*Client, error) {
	return as(place, addresses, "admin")
}

// ForNode speaks as a node: all it needs is to learn whether the API server is ready.
func ForNode(node layout.Node, addresses layout.Addresses) (*Client, error) {
	return as(node.Layout, addresses, node.Name())
}

func as(place layout.Layout, addresses layout.Addresses, identity string) (*Client, error) {
	pair, err := tls.LoadX509KeyPair(place.Certificate(identity), place.Key(identity))
	if err != nil {
		return nil, fmt.Errorf("loading the certificate of %s: %w", identity, err)
	}
	authority, err := os.ReadFile(place.Certificate("ca"))
	if err != nil {
		return nil, fmt.Errorf("loading the cluster's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("%s holds no certificate", place.Certificate("ca"))
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}
	return &Client{server: addresses.APIServer(), http: &http.Client{Transport: transport, Timeout: 10 * time.Second}}, nil
}

func (c *Client) do(ctx context.Context, method, path, kind string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.server+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 32<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, response.Status, strings.TrimSpace(string(answer)))
	}
	return answer, nil
}

// Ready says whether all of the API server's own checks pass.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.do(ctx, http.MethodGet, "/readyz", "", nil)
	return err
}

// Apply makes an object be as the manifest says.
func (c *Client) Apply(ctx context.Context, path string, manifest []byte) error {
	_, err := c.do(ctx, http.MethodPatch, path+"?fieldManager=bizra-test-cluster&force=true", "application/apply-patch+yaml", manifest)
	return err
}

// Exists says whether an object is there.
func (c *Client) Exists(ctx context.Context, path string) error {
	_, err := c.do(ctx, http.MethodGet, path, "", nil)
	return err
}

// Node is what matters of a Node and its CSINode.
type Node struct {
	Name string
	// Ready is the kubelet's own word; Reason and Message say why not.
	Ready   bool
	Message string
	// Heartbeat is when the kubelet last said so, to the second; what it said before the node lost its power still stands for a while.
	Heartbeat time.Time
	// Storage says that the node's kubelet knows the CSI driver.
	Storage bool
}

// Nodes lists the nodes that registered themselves.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	nodeList, err := c.do(ctx, http.MethodGet, "/api/v1/nodes?resourceVersion=0", "", nil)
	if err != nil {
		return nil, err
	}
	storageList, err := c.do(ctx, http.MethodGet, "/apis/storage.k8s.io/v1/csinodes?resourceVersion=0", "", nil)
	if err != nil {
		return nil, err
	}
	return decodeNodes(nodeList, storageList)
}

func decodeNodes(nodeList, storageList []byte) ([]Node, error) {
	type metadata struct{ Name string }
	var nodes struct {
		Items []struct {
			Metadata metadata
			Status   struct {
				Conditions []struct {
					Type, Status, Message string
					LastHeartbeatTime     time.Time
				}
			}
		}
	}
	var storage struct {
		Items []struct {
			Metadata metadata
			Spec     struct{ Drivers []metadata }
		}
	}
	if err := errors.Join(json.Unmarshal(nodeList, &nodes), json.Unmarshal(storageList, &storage)); err != nil {
		return nil, fmt.Errorf("reading the API server's answer: %w", err)
	}
	withDriver := map[string]bool{}
	for _, item := range storage.Items {
		for _, driver := range item.Spec.Drivers {
			withDriver[item.Metadata.Name] = withDriver[item.Metadata.Name] || driver.Name == layout.StorageDriver
		}
	}
	result := make([]Node, 0, len(nodes.Items))
	for _, item := range nodes.Items {
		node := Node{Name: item.Metadata.Name, Storage: withDriver[item.Metadata.Name], Message: "no status yet"}
		for _, condition := range item.Status.Conditions {
			if condition.Type == "Ready" {
				node.Ready, node.Message, node.Heartbeat = condition.Status == "True", condition.Message, condition.LastHeartbeatTime
			}
		}
		result = append(result, node)
	}
	return result, nil
}
