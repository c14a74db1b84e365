package apiclient

import (
	"reflect"
	"testing"
	"time"
)

func TestNodesAreReadyByTheirOwnWord(t *testing.T) {
	nodes := `{"items":[
		{"metadata":{"name":"node0"},"status":{"conditions":[{"type":"DiskPressure","status":"False"},{"type":"Ready","status":"True","message":"posting","lastHeartbeatTime":"2026-01-02T03:04:05Z"}]}},
		{"metadata":{"name":"node1"},"status":{"conditions":[{"type":"Ready","status":"Unknown","message":"stopped posting"}]}},
		{"metadata":{"name":"node2"},"status":{}}]}`
	storage := `{"items":[{"metadata":{"name":"node0"},"spec":{"drivers":[{"name":"other"},{"name":"volumes.bizra.test"}]}},
		{"metadata":{"name":"node1"},"spec":{"drivers":[{"name":"other"}]}}]}`
	got, err := decodeNodes([]byte(nodes), []byte(storage))
	want := []Node{
		{Name: "node0", Ready: true, Message: "posting", Storage: true, Heartbeat: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		{Name: "node1", Message: "stopped posting"},
		{Name: "node2", Message: "no status yet"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := decodeNodes([]byte("<html>"), []byte("{}")); err == nil {
		t.Error("an answer that is not JSON was accepted")
	}
}
