package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// table is the name of the agent's table; nothing else is touched.
const table = "bizra-policy"

// closedMark ends every chain: the rest is denied.
const closedMark = "counter drop"

// Scene is everything rules are made of.
type Scene struct {
	// Node is the node whose Pods are closed off.
	Node string
	// Host is where the API server calls from. It may reach every Pod, as a node may reach its own Pods.
	Host       netip.Addr
	Pods       []*core.Pod
	Namespaces []*core.Namespace
	Policies   []*networking.NetworkPolicy
}

// allowance is one rule of a policy, in either direction.
type allowance struct {
	peers []networking.NetworkPolicyPeer
	ports []networking.NetworkPolicyPort
}

// Render gives the script that replaces the agent's table. A Pod's chain returns what is allowed and drops the rest, so that a packet
// between two closed Pods needs the leave of both.
func (s Scene) Render() string {
	var chains strings.Builder
	var ingress, egress []string
	for _, pod := range s.members() {
		if pod.Spec.NodeName != s.Node {
			continue
		}
		address := pod.Status.PodIP
		for _, direction := range []struct {
			kind        networking.PolicyType
			name, other string
			jumps       *[]string
		}{{networking.PolicyTypeIngress, "ingress", "saddr", &ingress}, {networking.PolicyTypeEgress, "egress", "daddr", &egress}} {
			allowed, closed := s.allowances(pod, direction.kind)
			if !closed {
				continue
			}
			chain := direction.name + "-" + strings.ReplaceAll(address, ".", "-")
			*direction.jumps = append(*direction.jumps, fmt.Sprintf("%s : jump %s", address, chain))
			fmt.Fprintf(&chains, "\n\t# %s/%s\n\tchain %s {\n", pod.Namespace, pod.Name, chain)
			// Nobody is closed off from himself.
			fmt.Fprintf(&chains, "\t\tip %s %s return\n", direction.other, address)
			for _, one := range allowed {
				var receiver *core.Pod
				if direction.kind == networking.PolicyTypeIngress {
					receiver = pod
				}
				for _, line := range lines(direction.other, s.sources(pod.Namespace, one.peers), destinations(receiver, one.ports)) {
					fmt.Fprintf(&chains, "\t\t%sreturn\n", line)
				}
			}
			fmt.Fprintf(&chains, "\t\t%s\n\t}\n", closedMark)
		}
	}
	var script strings.Builder
	// Added first, so that there is one to delete.
	fmt.Fprintf(&script, "add table inet %[1]s\ndelete table inet %[1]s\ntable inet %[1]s {\n", table)
	for _, hook := range []string{"forward", "input"} {
		// After the translation of Service addresses. What a Pod sends to its own node comes by input; what a node sends to its own
		// Pods, such as probes, comes by output and is let through.
		fmt.Fprintf(&script, "\tchain %[1]s {\n\t\ttype filter hook %[1]s priority 10; policy accept;\n", hook)
		script.WriteString("\t\tct state established,related accept\n")
		if len(egress) > 0 {
			fmt.Fprintf(&script, "\t\tip saddr vmap { %s }\n", strings.Join(egress, ", "))
		}
		if hook == "forward" && len(ingress) > 0 {
			fmt.Fprintf(&script, "\t\tip saddr %s accept\n", s.Host)
			fmt.Fprintf(&script, "\t\tip daddr vmap { %s }\n", strings.Join(ingress, ", "))
		}
		script.WriteString("\t}\n")
	}
	script.WriteString(chains.String())
	script.WriteString("}\n")
	return script.String()
}

// members are the Pods that have an address of their own now, in the order of their addresses. One that has ended has given it back; of
// two that claim one, after a node was off, the newer has it.
func (s Scene) members() []*core.Pod {
	holders := map[netip.Addr]*core.Pod{}
	for _, pod := range s.Pods {
		address, err := netip.ParseAddr(pod.Status.PodIP)
		ended := pod.Status.Phase == core.PodSucceeded || pod.Status.Phase == core.PodFailed
		if err != nil || !address.Is4() || pod.Spec.HostNetwork || ended {
			continue
		}
		if other := holders[address]; other == nil || other.CreationTimestamp.Before(&pod.CreationTimestamp) {
			holders[address] = pod
		}
	}
	var members []*core.Pod
	for _, address := range slices.SortedFunc(maps.Keys(holders), netip.Addr.Compare) {
		members = append(members, holders[address])
	}
	return members
}

// allowances are the rules of all policies that select the Pod, and whether any does.
func (s Scene) allowances(pod *core.Pod, kind networking.PolicyType) (allowed []allowance, closed bool) {
	for _, policy := range s.ordered() {
		if policy.Namespace != pod.Namespace || !slices.Contains(policy.Spec.PolicyTypes, kind) ||
			!selects(&policy.Spec.PodSelector, pod.Labels) {
			continue
		}
		closed = true
		if kind == networking.PolicyTypeIngress {
			for _, rule := range policy.Spec.Ingress {
				allowed = append(allowed, allowance{rule.From, rule.Ports})
			}
			continue
		}
		for _, rule := range policy.Spec.Egress {
			allowed = append(allowed, allowance{rule.To, rule.Ports})
		}
	}
	return allowed, closed
}

// ordered are the policies by name: the same scene always gives the same text.
func (s Scene) ordered() []*networking.NetworkPolicy {
	ordered := slices.Clone(s.Policies)
	slices.SortFunc(ordered, func(a, b *networking.NetworkPolicy) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return ordered
}

// sources are matches of the other end's address, one of which must hold; "%s" stands for its direction. Nil is anybody.
func (s Scene) sources(namespace string, peers []networking.NetworkPolicyPeer) []string {
	if len(peers) == 0 {
		return nil
	}
	matches := []string{}
	var addresses []string
	for _, pod := range s.members() {
		if slices.ContainsFunc(peers, func(peer networking.NetworkPolicyPeer) bool { return s.isPeer(namespace, peer, pod) }) {
			addresses = append(addresses, pod.Status.PodIP)
		}
	}
	if len(addresses) > 0 {
		matches = append(matches, fmt.Sprintf("ip %%[1]s { %s } ", strings.Join(addresses, ", ")))
	}
	for _, peer := range peers {
		if peer.IPBlock == nil {
			continue
		}
		cidr, err := netip.ParsePrefix(peer.IPBlock.CIDR)
		if err != nil || !cidr.Addr().Is4() {
			continue
		}
		match := fmt.Sprintf("ip %%[1]s %s ", cidr)
		if cidr.Bits() == 0 {
			match = ""
		}
		for _, except := range peer.IPBlock.Except {
			match += fmt.Sprintf("ip %%[1]s != %s ", except)
		}
		matches = append(matches, match)
	}
	return matches
}

// isPeer says whether a policy of a namespace means this Pod.
func (s Scene) isPeer(namespace string, peer networking.NetworkPolicyPeer, pod *core.Pod) bool {
	if peer.IPBlock != nil {
		return false
	}
	if peer.NamespaceSelector == nil {
		if pod.Namespace != namespace {
			return false
		}
	} else if index := slices.IndexFunc(s.Namespaces, func(one *core.Namespace) bool { return one.Name == pod.Namespace }); index < 0 ||
		!selects(peer.NamespaceSelector, s.Namespaces[index].Labels) {
		return false
	}
	return peer.PodSelector == nil || selects(peer.PodSelector, pod.Labels)
}

func selects(selector *meta.LabelSelector, of map[string]string) bool {
	parsed, err := meta.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(labels.Set(of))
}

// destinations are matches of protocol and port, one of which must hold. Nil is everything. A name is looked up in the receiver, who is
// known for what comes in only: elsewhere it matches nothing.
func destinations(receiver *core.Pod, ports []networking.NetworkPolicyPort) []string {
	if len(ports) == 0 {
		return nil
	}
	matches := []string{}
	for _, protocol := range []core.Protocol{core.ProtocolTCP, core.ProtocolUDP, core.ProtocolSCTP} {
		word := strings.ToLower(string(protocol))
		var numbers []string
		whole := false
		for _, port := range ports {
			if port.Protocol != nil && *port.Protocol != protocol || port.Protocol == nil && protocol != core.ProtocolTCP {
				continue
			}
			switch {
			case port.Port == nil:
				whole = true
			case port.Port.Type == intstr.String:
				numbers = append(numbers, named(receiver, protocol, port.Port.StrVal)...)
			case port.EndPort != nil:
				matches = append(matches, fmt.Sprintf("%s dport %d-%d ", word, port.Port.IntVal, *port.EndPort))
			default:
				numbers = append(numbers, fmt.Sprint(port.Port.IntVal))
			}
		}
		switch {
		case whole:
			matches = append(matches, fmt.Sprintf("meta l4proto %s ", word))
		case len(numbers) > 0:
			slices.Sort(numbers)
			matches = append(matches, fmt.Sprintf("%s dport { %s } ", word, strings.Join(slices.Compact(numbers), ", ")))
		}
	}
	return matches
}

func named(pod *core.Pod, protocol core.Protocol, name string) []string {
	var numbers []string
	if pod == nil {
		return nil
	}
	for _, container := range pod.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == name && (port.Protocol == protocol || port.Protocol == "" && protocol == core.ProtocolTCP) {
				numbers = append(numbers, fmt.Sprint(port.ContainerPort))
			}
		}
	}
	return numbers
}

// lines are all pairs of a source and a destination.
func lines(direction string, sources, destinations []string) []string {
	if sources == nil {
		sources = []string{""}
	}
	if destinations == nil {
		destinations = []string{""}
	}
	var lines []string
	for _, source := range sources {
		for _, destination := range destinations {
			if source != "" {
				source = strings.ReplaceAll(source, "%[1]s", direction)
			}
			lines = append(lines, source+destination)
		}
	}
	return lines
}
