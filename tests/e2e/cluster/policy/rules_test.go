package policy

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func pod(namespace, name, node, address string, labels map[string]string) *core.Pod {
	return &core.Pod{
		ObjectMeta: meta.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: core.PodSpec{NodeName: node, Containers: []core.Container{{
			Ports: []core.ContainerPort{{Name: "peer", ContainerPort: 7100}, {Name: "peer", ContainerPort: 7101, Protocol: core.ProtocolUDP}},
		}}},
		Status: core.PodStatus{PodIP: address, Phase: core.PodRunning},
	}
}

func namespace(name string) *core.Namespace {
	return &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/metadata.name": name}}}
}

func of(name, value string) *meta.LabelSelector {
	return &meta.LabelSelector{MatchLabels: map[string]string{name: value}}
}

func tcp(port intstr.IntOrString) []networking.NetworkPolicyPort {
	return []networking.NetworkPolicyPort{{Port: &port}}
}

// scene has two nodes of a network that is closed off, a foreign Pod beside them, and an operator in another namespace.
func scene(rules ...networking.NetworkPolicyIngressRule) Scene {
	member := map[string]string{"network": "demo"}
	policy := &networking.NetworkPolicy{
		ObjectMeta: meta.ObjectMeta{Namespace: "chain", Name: "demo"},
		Spec: networking.NetworkPolicySpec{
			PodSelector: *of("network", "demo"), Ingress: rules,
			PolicyTypes: []networking.PolicyType{networking.PolicyTypeIngress, networking.PolicyTypeEgress},
			Egress: []networking.NetworkPolicyEgressRule{{
				To: []networking.NetworkPolicyPeer{{PodSelector: of("network", "demo")}}, Ports: tcp(intstr.FromInt32(7100)),
			}},
		},
	}
	return Scene{
		Node: "node0", Host: netip.MustParseAddr("10.89.0.1"),
		Pods: []*core.Pod{
			pod("chain", "v1", "node1", "10.245.1.2", member), pod("chain", "v0", "node0", "10.245.0.9", member),
			pod("chain", "stranger", "node0", "10.245.0.10", nil),
			pod("system", "operator", "node1", "10.245.1.3", map[string]string{"name": "operator"}),
			pod("other", "operator", "node1", "10.245.1.4", map[string]string{"name": "operator"}),
		},
		Namespaces: []*core.Namespace{namespace("chain"), namespace("system"), namespace("other")},
		Policies:   []*networking.NetworkPolicy{policy},
	}
}

// chain gives the lines of one chain.
func chain(t *testing.T, rules, name string) []string {
	t.Helper()
	_, rest, found := strings.Cut(rules, "chain "+name+" {\n")
	if !found {
		t.Fatalf("there is no chain %s in\n%s", name, rules)
	}
	body, _, _ := strings.Cut(rest, "\t}")
	var lines []string
	for line := range strings.Lines(body) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

func equal(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestTheWholeTable(t *testing.T) {
	got := scene(networking.NetworkPolicyIngressRule{
		From: []networking.NetworkPolicyPeer{{PodSelector: of("network", "demo")}}, Ports: tcp(intstr.FromInt32(7100)),
	}).Render()
	want := `add table inet bizra-policy
delete table inet bizra-policy
table inet bizra-policy {
	chain forward {
		type filter hook forward priority 10; policy accept;
		ct state established,related accept
		ip saddr vmap { 10.245.0.9 : jump egress-10-245-0-9 }
		ip saddr 10.89.0.1 accept
		ip daddr vmap { 10.245.0.9 : jump ingress-10-245-0-9 }
	}
	chain input {
		type filter hook input priority 10; policy accept;
		ct state established,related accept
		ip saddr vmap { 10.245.0.9 : jump egress-10-245-0-9 }
	}

	# chain/v0
	chain ingress-10-245-0-9 {
		ip saddr 10.245.0.9 return
		ip saddr { 10.245.0.9, 10.245.1.2 } tcp dport { 7100 } return
		counter drop
	}

	# chain/v0
	chain egress-10-245-0-9 {
		ip daddr 10.245.0.9 return
		ip daddr { 10.245.0.9, 10.245.1.2 } tcp dport { 7100 } return
		counter drop
	}
}
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestPeersAreWhoTheSelectorsMean(t *testing.T) {
	for name, test := range map[string]struct {
		peer networking.NetworkPolicyPeer
		want []string
	}{
		"Pods of the policy's namespace": {networking.NetworkPolicyPeer{PodSelector: &meta.LabelSelector{}},
			[]string{"ip saddr { 10.245.0.9, 10.245.0.10, 10.245.1.2 } return"}},
		"Pods of another namespace": {networking.NetworkPolicyPeer{
			NamespaceSelector: of("kubernetes.io/metadata.name", "system"), PodSelector: of("name", "operator"),
		}, []string{"ip saddr { 10.245.1.3 } return"}},
		"all of a namespace": {networking.NetworkPolicyPeer{NamespaceSelector: of("kubernetes.io/metadata.name", "other")},
			[]string{"ip saddr { 10.245.1.4 } return"}},
		"nobody there": {networking.NetworkPolicyPeer{PodSelector: of("name", "operator")}, nil},
		"a range": {networking.NetworkPolicyPeer{IPBlock: &networking.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.245.0.0/16"}}},
			[]string{"ip saddr 10.0.0.0/8 ip saddr != 10.245.0.0/16 return"}},
		"everywhere but":    {networking.NetworkPolicyPeer{IPBlock: &networking.IPBlock{CIDR: "0.0.0.0/0", Except: []string{"10.0.0.0/8"}}}, []string{"ip saddr != 10.0.0.0/8 return"}},
		"a range of others": {networking.NetworkPolicyPeer{IPBlock: &networking.IPBlock{CIDR: "fd00::/8"}}, nil},
	} {
		rules := scene(networking.NetworkPolicyIngressRule{From: []networking.NetworkPolicyPeer{test.peer}}).Render()
		t.Run(name, func(t *testing.T) {
			equal(t, chain(t, rules, "ingress-10-245-0-9"),
				append(append([]string{"ip saddr 10.245.0.9 return"}, test.want...), closedMark)...)
		})
	}
}

func TestPorts(t *testing.T) {
	end, udp := int32(7300), core.ProtocolUDP
	number, name := intstr.FromInt32(7200), intstr.FromString("peer")
	for what, test := range map[string]struct {
		ports []networking.NetworkPolicyPort
		want  []string
	}{
		"none is all":        {nil, []string{"return"}},
		"a range":            {[]networking.NetworkPolicyPort{{Port: &number, EndPort: &end}}, []string{"tcp dport 7200-7300 return"}},
		"a protocol":         {[]networking.NetworkPolicyPort{{Protocol: &udp}}, []string{"meta l4proto udp return"}},
		"a name":             {[]networking.NetworkPolicyPort{{Port: &name}}, []string{"tcp dport { 7100 } return"}},
		"a name of udp":      {[]networking.NetworkPolicyPort{{Port: &name, Protocol: &udp}}, []string{"udp dport { 7101 } return"}},
		"twice, and another": {[]networking.NetworkPolicyPort{{Port: &number}, {Port: &number}, {Port: &number, Protocol: &udp}}, []string{"tcp dport { 7200 } return", "udp dport { 7200 } return"}},
	} {
		rules := scene(networking.NetworkPolicyIngressRule{Ports: test.ports}).Render()
		t.Run(what, func(t *testing.T) {
			equal(t, chain(t, rules, "ingress-10-245-0-9"),
				append(append([]string{"ip saddr 10.245.0.9 return"}, test.want...), closedMark)...)
		})
	}
}

func TestAPolicyOfOneDirectionLeavesTheOtherOpenAndNoPolicyBoth(t *testing.T) {
	one := scene()
	one.Policies[0].Spec.PolicyTypes = []networking.PolicyType{networking.PolicyTypeEgress}
	if rules := one.Render(); strings.Contains(rules, "ip daddr vmap") || !strings.Contains(rules, "chain egress-10-245-0-9") {
		t.Error(rules)
	}
	one.Policies = nil
	if rules := one.Render(); strings.Contains(rules, "vmap") || strings.Contains(rules, closedMark) {
		t.Error(rules)
	}
}

func TestPoliciesAddUpAndOnesOfOtherNamespacesDoNotCount(t *testing.T) {
	one := scene()
	foreign := one.Policies[0].DeepCopy()
	foreign.Namespace, foreign.Spec.Ingress = "other", []networking.NetworkPolicyIngressRule{{}}
	second := one.Policies[0].DeepCopy()
	second.Name, second.Spec.PodSelector = "more", meta.LabelSelector{}
	second.Spec.Ingress = []networking.NetworkPolicyIngressRule{{Ports: tcp(intstr.FromInt32(7500))}}
	one.Policies = append(one.Policies, second, foreign)
	rules := one.Render()
	equal(t, chain(t, rules, "ingress-10-245-0-9"), "ip saddr 10.245.0.9 return", "tcp dport { 7500 } return", closedMark)
	equal(t, chain(t, rules, "ingress-10-245-0-10"), "ip saddr 10.245.0.10 return", "tcp dport { 7500 } return", closedMark)
}

func TestAnAddressBelongsToTheNewestPodThatHasNotEnded(t *testing.T) {
	one := scene()
	heir := pod("other", "heir", "node0", "10.245.0.9", nil)
	heir.CreationTimestamp = meta.NewTime(time.Unix(1, 0))
	one.Pods = append(one.Pods, heir)
	if rules := one.Render(); strings.Contains(rules, "10.245.0.9") {
		t.Errorf("the heir is closed off by the policy of the dead:\n%s", rules)
	}
	heir.Status.Phase = core.PodSucceeded
	if rules := one.Render(); !strings.Contains(rules, "chain ingress-10-245-0-9") {
		t.Errorf("a Pod that has ended still holds its address:\n%s", rules)
	}
}

// The kernel itself has to take every form that is rendered.
func TestTheKernelTakesTheRules(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a network namespace of its own")
	}
	end, sctp := int32(7300), core.ProtocolSCTP
	number, name := intstr.FromInt32(7200), intstr.FromString("peer")
	rules := scene(
		networking.NetworkPolicyIngressRule{},
		networking.NetworkPolicyIngressRule{
			From: []networking.NetworkPolicyPeer{
				{PodSelector: &meta.LabelSelector{}},
				{IPBlock: &networking.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.1.0.0/16", "10.1.1.0/24"}}},
				{IPBlock: &networking.IPBlock{CIDR: "0.0.0.0/0"}},
			},
			Ports: []networking.NetworkPolicyPort{{Port: &number, EndPort: &end}, {Port: &name}, {Port: &number}, {Protocol: &sctp}},
		},
	).Render()
	// Twice: the second time there is a table to replace.
	command := exec.Command("unshare", "--net", "sh", "-c", `cat >"$0" && nft -f "$0" && nft -f "$0"`, t.TempDir()+"/rules")
	command.Stdin = strings.NewReader(rules)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, output, rules)
	}
}
