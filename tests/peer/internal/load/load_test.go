package load

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"github.com/cometbft/cometbft/types"
)

func TestEveryPlannedTransactionHasTheSizeAndIsFoundByItsHash(t *testing.T) {
	opaque, err := Opaque(50, 256, 7)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := Signed(50, 256, 3, 7)
	if err != nil {
		t.Fatal(err)
	}
	for _, plan := range []*Plan{opaque, signed} {
		if len(plan.Requests) != 50 || len(plan.Index) != 50 {
			t.Fatalf("%d requests, %d transactions", len(plan.Requests), len(plan.Index))
		}
		for index, request := range plan.Requests {
			var call struct {
				Params struct {
					Transaction string `json:"tx"`
				} `json:"params"`
			}
			if err := json.Unmarshal(request, &call); err != nil {
				t.Fatal(err)
			}
			transaction, err := base64.StdEncoding.DecodeString(call.Params.Transaction)
			if err != nil || len(transaction) != 256 {
				t.Fatalf("%d bytes: %v", len(transaction), err)
			}
			if found, planned := plan.Index[sha256.Sum256(transaction)]; !planned || found != index {
				t.Errorf("transaction %d is found as %d", index, found)
			}
		}
	}
}

func TestAHeightWhoseNoticeWasLostIsKnownWithTheNextAndItsBlockIsRead(t *testing.T) {
	watch := &headers{seen: map[int64]time.Time{}, stamps: map[int64]time.Time{}, filled: map[int64]bool{}}
	first, second := time.Unix(1, 0), time.Unix(2, 0)
	watch.add(types.Header{Height: 5, DataHash: emptyBlock}, first)
	watch.add(types.Header{Height: 8, DataHash: []byte{1}}, second)
	for height, filled := range map[int64]bool{5: false, 6: true, 7: true, 8: true} {
		if watch.filled[height] != filled {
			t.Errorf("height %d: filled %v", height, watch.filled[height])
		}
	}
	if watch.seen[5] != first || watch.seen[6] != second || watch.seen[8] != second {
		t.Errorf("seen %v", watch.seen)
	}
}

func TestPercentilesAreOfSortedTimes(t *testing.T) {
	var times []time.Duration
	for milliseconds := 1000; milliseconds > 0; milliseconds-- {
		times = append(times, time.Duration(milliseconds)*time.Millisecond)
	}
	if got := percentiles(times); got != (Latency{Mean: 500.5, P50: 501, P95: 951, P99: 991, Max: 1000}) {
		t.Errorf("%+v", got)
	}
	if got := percentiles(nil); got != (Latency{}) {
		t.Errorf("%+v", got)
	}
}
