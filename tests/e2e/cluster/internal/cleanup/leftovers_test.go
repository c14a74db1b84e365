package cleanup

import (
	"reflect"
	"testing"
)

func TestMountsBelowAFolder(t *testing.T) {
	table := `27 1 254:0 / / rw - ext4 /dev/vda rw
50 27 254:0 /x /state/run/nodes/node0/kubelet rw - ext4 /dev/vda rw
51 27 7:0 / /state/run/with\040blank rw - xfs /dev/loop0 rw
52 27 7:0 / /state/running rw - xfs /dev/loop1 rw
53 27 7:0 / /state/run rw - xfs /dev/loop1 rw
`
	want := []string{"/state/run/nodes/node0/kubelet", "/state/run/with blank"}
	if got := MountsBelow(table, "/state/run"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRulesThatNameTheClustersLinks(t *testing.T) {
	rules := "-P FORWARD DROP\n-A FORWARD -i bizra-br0 -o bizra-br0 -j ACCEPT\n-A FORWARD -i eth0 -j ACCEPT\n"
	want := []string{"-A FORWARD -i bizra-br0 -o bizra-br0 -j ACCEPT"}
	if got := MentionsOf(rules, "bizra-"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
