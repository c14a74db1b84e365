// Package network builds the cluster's network: a bridge in the root network namespace, a link from it into each node, and the
// routes to the Pods. Nothing is masqueraded, so every Pod keeps its address wherever it calls.
package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bizra.io/cluster/internal/layout"
)

func network(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), 32)}
}

// InUse lists the ranges that the machine routes over links that are not the cluster's.
func InUse() ([]netip.Prefix, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	ours := map[int]bool{}
	for _, link := range links {
		ours[link.Attrs().Index] = strings.HasPrefix(link.Attrs().Name, layout.LinkPrefix)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	var prefixes []netip.Prefix
	for _, route := range routes {
		if ours[route.LinkIndex] || route.Dst == nil {
			continue
		}
		if prefix, err := netip.ParsePrefix(route.Dst.String()); err == nil {
			prefixes = append(prefixes, prefix)
		}
	}
	return prefixes, nil
}

// EnsureBridge makes the bridge, with the owner's state folder as its alias.
func EnsureBridge(addresses layout.Addresses, owner string) error {
	bridge, err := netlink.LinkByName(layout.Bridge)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = layout.Bridge
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil {
			return fmt.Errorf("making the bridge %s: %w", layout.Bridge, err)
		}
		bridge, err = netlink.LinkByName(layout.Bridge)
	}
	if err != nil {
		return fmt.Errorf("finding the bridge %s: %w", layout.Bridge, err)
	}
	if err := netlink.LinkSetAlias(bridge, owner); err != nil {
		return fmt.Errorf("naming the owner of %s: %w", layout.Bridge, err)
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: addresses.Bridge().AsSlice(), Mask: network(addresses.Nodes).Mask}}
	if err := netlink.AddrReplace(bridge, address); err != nil {
		return fmt.Errorf("giving %s the address %s: %w", layout.Bridge, address, err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("bringing up %s: %w", layout.Bridge, err)
	}
	return nil
}

// Owner is the state folder of the cluster that has the bridge, or empty if there is no bridge.
func Owner() string {
	bridge, err := netlink.LinkByName(layout.Bridge)
	if err != nil {
		return ""
	}
	return bridge.Attrs().Alias
}

// ConnectNode plugs the network namespace of process `pid` into the bridge and routes the node's Pods there.
func ConnectNode(node layout.Node, addresses layout.Addresses, pid int) error {
	bridge, err := netlink.LinkByName(layout.Bridge)
	if err != nil {
		return fmt.Errorf("finding the bridge %s: %w", layout.Bridge, err)
	}
	if err := RemoveLink(node.Link()); err != nil {
		return err
	}
	hardware, err := net.ParseMAC(node.HardwareAddress())
	if err != nil {
		return err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MasterIndex = node.Link(), bridge.Attrs().Index
	link := &netlink.Veth{LinkAttrs: attributes, PeerName: "eth0", PeerHardwareAddr: hardware, PeerNamespace: netlink.NsPid(pid)}
	if err := netlink.LinkAdd(link); err != nil {
		return fmt.Errorf("linking %s to the bridge: %w", node.Name(), err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing up %s: %w", node.Link(), err)
	}
	return route(addresses.PodsOf(node.Index), addresses.Node(node.Index))
}

// Repair plugs the link of a node that has power in again, and says whether there still is one.
func Repair(node layout.Node, addresses layout.Addresses) (bool, error) {
	link, err := netlink.LinkByName(node.Link())
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("finding link %s: %w", node.Link(), err)
	}
	bridge, err := netlink.LinkByName(layout.Bridge)
	if err != nil {
		return false, fmt.Errorf("finding the bridge %s: %w", layout.Bridge, err)
	}
	if link.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := netlink.LinkSetMaster(link, bridge); err != nil {
			return false, fmt.Errorf("linking %s to the bridge: %w", node.Name(), err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return false, fmt.Errorf("bringing up %s: %w", node.Link(), err)
	}
	return true, route(addresses.PodsOf(node.Index), addresses.Node(node.Index))
}

func route(destination netip.Prefix, gateway netip.Addr) error {
	entry := &netlink.Route{Dst: network(destination), Gw: gateway.AsSlice()}
	if err := netlink.RouteReplace(entry); err != nil {
		return fmt.Errorf("routing %s by %s: %w", destination, gateway, err)
	}
	return nil
}

// DisconnectNode removes the node's link and the route to its Pods.
func DisconnectNode(node layout.Node, addresses layout.Addresses) error {
	if addresses.Pods.IsValid() {
		entry := &netlink.Route{Dst: network(addresses.PodsOf(node.Index)), Gw: addresses.Node(node.Index).AsSlice()}
		if err := netlink.RouteDel(entry); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENETUNREACH) {
			return fmt.Errorf("removing the route to %s's Pods: %w", node.Name(), err)
		}
	}
	return RemoveLink(node.Link())
}

// RemoveLink deletes a link of the root namespace, if it is there.
func RemoveLink(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("finding link %s: %w", name, err)
	}
	// A link into a namespace that is just going away may vanish in between.
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("removing link %s: %w", name, err)
	}
	return nil
}

// Links names the cluster's links in the root namespace.
func Links() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	var names []string
	for _, link := range links {
		if strings.HasPrefix(link.Attrs().Name, layout.LinkPrefix) {
			names = append(names, link.Attrs().Name)
		}
	}
	return names, nil
}

// ConfigureNode is run inside a node's namespace.
func ConfigureNode(index int, addresses layout.Addresses) error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		return fmt.Errorf("bringing up lo: %w", err)
	}
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("finding eth0: %w", err)
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: addresses.Node(index).AsSlice(), Mask: network(addresses.Nodes).Mask}}
	if err := netlink.AddrReplace(link, address); err != nil {
		return fmt.Errorf("giving eth0 the address %s: %w", address, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing up eth0: %w", err)
	}
	if err := route(netip.MustParsePrefix("0.0.0.0/0"), addresses.Bridge()); err != nil {
		return err
	}
	for other := range layout.NodeCount {
		if other != index {
			if err := route(addresses.PodsOf(other), addresses.Node(other)); err != nil {
				return err
			}
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("letting the node forward its Pods' packets: %w", err)
	}
	// Without this a reply between two Pods of one node would not be translated back; absent where the kernel has no br_netfilter.
	_ = os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("1"), 0o644)
	return nil
}
