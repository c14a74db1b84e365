package cgroup

import (
	"reflect"
	"testing"
)

const versionOne = `22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`

const versionTwo = `29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
30 23 0:27 / /other/place rw - cgroup2 cgroup2 rw
`

func TestHierarchiesOfBothVersions(t *testing.T) {
	want := []Hierarchy{
		{Mount: "/sys/fs/cgroup/cpuset", Version: 1, Cpuset: true}, {Mount: "/sys/fs/cgroup/memory", Version: 1},
		{Mount: "/sys/fs/cgroup/unified", Version: 2},
	}
	if got := Parse(versionOne); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if got := Parse(versionTwo); !reflect.DeepEqual(got, []Hierarchy{{Mount: "/sys/fs/cgroup", Version: 2}}) {
		t.Errorf("got %+v", got)
	}
	if got := Parse("nothing\n"); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
}
