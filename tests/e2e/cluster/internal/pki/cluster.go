package pki

import (
	"net/netip"
	"os"

	"bizra.io/cluster/internal/layout"
)

// WriteCluster makes every key and certificate the cluster needs, once: with them on disk it does nothing, since a running
// cluster trusts the old ones.
func WriteCluster(place layout.Layout, addresses layout.Addresses) error {
	// Written last, so its presence says that all the others are there.
	if _, err := os.Stat(place.Certificate("ca")); err == nil {
		return nil
	}
	authority, err := NewAuthority("bizra-test-cluster")
	if err != nil {
		return err
	}
	front, err := NewAuthority("bizra-test-cluster-front-proxy")
	if err != nil {
		return err
	}
	signer, err := NewSigner()
	if err != nil {
		return err
	}
	pairs := map[string]Pair{"front-proxy-ca": front.Pair, "service-account": signer}
	for name, request := range requests(addresses) {
		if pairs[name], err = authority.Issue(request); err != nil {
			return err
		}
	}
	if pairs["front-proxy"], err = front.Issue(Request{User: "front-proxy"}); err != nil {
		return err
	}
	for name, pair := range pairs {
		if err := write(place, name, pair); err != nil {
			return err
		}
	}
	return write(place, "ca", authority.Pair)
}

func requests(addresses layout.Addresses) map[string]Request {
	loopback := netip.MustParseAddr("127.0.0.1")
	requests := map[string]Request{
		"apiserver": {
			User: "kube-apiserver",
			Names: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc.cluster.local"},
			Addresses: []netip.Addr{loopback, addresses.Bridge(), addresses.KubernetesService()},
		},
		"apiserver-kubelet-client": {User: "kube-apiserver-kubelet-client", Group: "system:masters"},
		"admin":                    {User: "admin", Group: "system:masters"},
		"controller-manager":       {User: "system:kube-controller-manager"},
		"scheduler":                {User: "system:kube-scheduler"},
		"proxy":                    {User: "system:kube-proxy"},
		"dns":                      {User: "bizra:dns"},
		"storage":                  {User: "bizra:storage"},
		"policy":                   {User: "bizra:policy"},
	}
	for index := range layout.NodeCount {
		name := layout.Layout{}.Node(index).Name()
		requests[name] = Request{
			User: "system:node:" + name, Group: "system:nodes",
			Names: []string{name}, Addresses: []netip.Addr{loopback, addresses.Node(index)},
		}
	}
	return requests
}

func write(place layout.Layout, name string, pair Pair) error {
	if err := layout.WriteFile(place.Key(name), pair.Key, 0o600); err != nil {
		return err
	}
	return layout.WriteFile(place.Certificate(name), pair.Certificate, 0o644)
}
