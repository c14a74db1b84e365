package layout

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestAddressesAvoidWhatTheMachineUses(t *testing.T) {
	free, err := ChooseAddresses([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("192.0.2.0/24")})
	if err != nil || free.Nodes.String() != "10.89.0.0/24" {
		t.Fatalf("a default route takes nothing, got %v, %v", free, err)
	}
	for _, taken := range []string{"10.89.0.0/16", "10.97.3.0/24", "10.245.0.0/16"} {
		plan, err := ChooseAddresses([]netip.Prefix{netip.MustParsePrefix(taken)})
		if err != nil || plan.overlaps([]netip.Prefix{netip.MustParsePrefix(taken)}) {
			t.Errorf("%s is in use, but the plan is %v, %v", taken, plan, err)
		}
	}
	if _, err := ChooseAddresses([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}); err == nil {
		t.Error("with all of 10.0.0.0/8 in use there is no plan")
	}
}

func TestAddressesOfAPlan(t *testing.T) {
	plan, err := ChooseAddresses(nil)
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		plan.Bridge().String():            "10.89.0.1",
		plan.Node(4).String():             "10.89.0.14",
		plan.PodsOf(3).String():           "10.245.3.0/24",
		plan.KubernetesService().String(): "10.97.0.1",
		plan.APIServer():                  "https://10.89.0.1:6443",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestNamesFitTheKernel(t *testing.T) {
	for _, node := range (Layout{Dir: "/state"}).Nodes() {
		if len(node.Link()) > 15 || !strings.HasPrefix(node.Link(), LinkPrefix) {
			t.Errorf("%s is no name for a link of the cluster", node.Link())
		}
	}
	if len(Bridge) > 15 || !strings.HasPrefix(Bridge, LinkPrefix) {
		t.Errorf("%s is no name for the bridge of the cluster", Bridge)
	}
}

func TestStateFolderMustBeVisibleInNodes(t *testing.T) {
	for _, hidden := range []string{"/run/cluster", "/var/log", "/var/lib/kubelet/x"} {
		t.Setenv("BIZRA_CLUSTER_DIR", hidden)
		if _, err := FromEnvironment(); err == nil {
			t.Errorf("%s is hidden in every node and must be refused", hidden)
		}
	}
	t.Setenv("BIZRA_CLUSTER_DIR", "/running/is/fine")
	if place, err := FromEnvironment(); err != nil || place.Dir != "/running/is/fine" {
		t.Errorf("got %v, %v", place, err)
	}
}

func TestStateIsReadBackAsWritten(t *testing.T) {
	place := Layout{Dir: t.TempDir()}
	if _, err := place.Load(); !errors.Is(err, ErrNoState) {
		t.Fatalf("an empty folder holds no state, got %v", err)
	}
	addresses, err := ChooseAddresses(nil)
	if err != nil {
		t.Fatal(err)
	}
	written := State{Instance: NewInstance(), Addresses: addresses, Sysctls: map[string]string{"vm/panic_on_oom": "0"}}
	if err := place.Save(written); err != nil {
		t.Fatal(err)
	}
	read, err := place.Load()
	if err != nil || read.Instance != written.Instance || read.Addresses != addresses || read.Sysctls["vm/panic_on_oom"] != "0" {
		t.Errorf("wrote %+v, read %+v, %v", written, read, err)
	}
}
