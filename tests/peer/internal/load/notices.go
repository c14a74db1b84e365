package load

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cometbft/cometbft/rpc/client/http"
	"github.com/cometbft/cometbft/types"
)

// Notices that a node may owe us before it gives up on us.
const noticesMax = 10_000

// headers is what a client that watches one node learns: which block is final, and when it knew.
//
// Headers, not blocks: a block's event carries all results as JSON, and to make and read those would cost both sides more than a
// real client needs. What is counted here is the least that a client of CometBFT has to wait.
type headers struct {
	client *http.HTTP

	mutex sync.Mutex
	// By height; a height whose notice was lost counts as known with the next one.
	seen map[int64]time.Time
	last int64
	// The time in each header, and whether its block holds transactions.
	stamps map[int64]time.Time
	filled map[int64]bool
}

// watch begins to listen to a node.
func watch(ctx context.Context, node string) (*headers, error) {
	client, err := http.New("tcp://"+node, "/websocket")
	if err != nil {
		return nil, fmt.Errorf("use %s: %w", node, err)
	}
	if err := client.Start(); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", node, err)
	}
	events, err := client.Subscribe(ctx, "load", types.EventQueryNewBlockHeader.String(), noticesMax)
	if err != nil {
		return nil, fmt.Errorf("subscribe at %s: %w", node, err)
	}
	headers := &headers{
		client: client,
		seen:   make(map[int64]time.Time), stamps: make(map[int64]time.Time), filled: make(map[int64]bool),
	}
	go func() {
		for event := range events {
			if data, ok := event.Data.(types.EventDataNewBlockHeader); ok {
				headers.add(data.Header, time.Now())
			}
		}
	}()
	return headers, nil
}

func (h *headers) add(header types.Header, now time.Time) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if h.last > 0 {
		for height := h.last + 1; height < header.Height; height++ {
			h.seen[height] = now
			// Unknown; to be looked at.
			h.filled[height] = true
		}
	}
	h.seen[header.Height] = now
	h.last = max(h.last, header.Height)
	h.stamps[header.Height] = header.Time
	h.filled[header.Height] = string(header.DataHash) != string(emptyBlock)
}

// known is when a block was known to be final.
func (h *headers) known(height int64) (time.Time, bool) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	seen, known := h.seen[height]
	return seen, known
}

// stamped is the time in a block's header.
func (h *headers) stamped(height int64) (time.Time, bool) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	stamp, known := h.stamps[height]
	return stamp, known
}

var emptyBlock = types.Txs{}.Hash()
