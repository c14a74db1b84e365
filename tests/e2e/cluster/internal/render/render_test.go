package render

import (
	"encoding/json"
	"strings"
	"testing"

	"bizra.io/cluster/internal/layout"
)

func sample(t *testing.T) Node {
	t.Helper()
	addresses, err := layout.ChooseAddresses(nil)
	if err != nil {
		t.Fatal(err)
	}
	place := layout.Layout{Dir: "/state", Bin: "/bin-folder"}
	return Node{Node: place.Node(2), Addresses: addresses, Runc: "/usr/sbin/runc", ReservedMillicores: 1000, ReservedMebibytes: 2048}
}

func TestFilesOfANode(t *testing.T) {
	node := sample(t)
	for name, check := range map[string]struct {
		render func() ([]byte, error)
		wanted []string
	}{
		"containerd": {node.Containerd, []string{
			`root = "/state/nodes/node2/containerd"`, `restrict_oom_score_adj = true`, `sandbox = "localhost/pause:latest"`,
			`bin_dirs = ["/bin-folder"]`, `BinaryName = "/usr/sbin/runc"`,
		}},
		"kubelet": {node.Kubelet, []string{
			`address: "10.89.0.12"`, `cgroupRoot: "/bizra/node2"`, `clusterDNS: ["10.89.0.1"]`, `cpu: "1000m", memory: "2048Mi"`,
			`tlsCertFile: "/state/pki/node2.crt"`,
		}},
	} {
		text, err := check.render()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, wanted := range check.wanted {
			if !strings.Contains(string(text), wanted) {
				t.Errorf("%s lacks %s:\n%s", name, wanted, text)
			}
		}
	}
}

func TestPodNetworkIsNotMasqueraded(t *testing.T) {
	text, err := sample(t).PodNetwork()
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Plugins []struct {
			IPMasq bool
			IPAM   struct{ Ranges [][]struct{ Subnet string } }
		}
	}
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	bridge := config.Plugins[0]
	if bridge.IPMasq || bridge.IPAM.Ranges[0][0].Subnet != "10.245.2.0/24" {
		t.Errorf("got %+v", bridge)
	}
}

func TestNodesTogetherPromiseAboutTheMachine(t *testing.T) {
	for _, machine := range []struct{ cores, mebibytes int }{{2, 24 << 10}, {1, 4 << 10}, {64, 256 << 10}} {
		millicores, mebibytes := Reserve(machine.cores, machine.mebibytes)
		if left := machine.cores*1000 - millicores; left != 1000 {
			t.Errorf("%+v: a node offers %d millicores", machine, left)
		}
		left := machine.mebibytes - mebibytes
		if left < 512 || (left > 512 && left*layout.NodeCount > machine.mebibytes) {
			t.Errorf("%+v: a node offers %d MiB", machine, left)
		}
	}
}

func TestKubeconfigHoldsEverything(t *testing.T) {
	text, err := Kubeconfig("https://10.89.0.1:6443", []byte("authority"), []byte("certificate"), []byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, wanted := range []string{"https://10.89.0.1:6443", "YXV0aG9yaXR5", "Y2VydGlmaWNhdGU=", "a2V5"} {
		if !strings.Contains(string(text), wanted) {
			t.Errorf("lacks %s:\n%s", wanted, text)
		}
	}
}
