package load

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/cometbft/cometbft/types"
)

// Settings of a run.
type Settings struct {
	// Nodes are the RPC addresses of the validators; transactions are spread over all.
	Nodes []string
	// Rate is transactions a second; Duration the length of the schedule.
	Rate     int
	Duration time.Duration
	// Connections to each node.
	Connections int
	// Drain is how long to wait for blocks after the schedule has ended.
	Drain time.Duration
}

// Before the first transaction is due: time to connect.
const lead = 500 * time.Millisecond

// Run submits a plan and returns its figures. What happens when is said on progress: "submitting" as the clock starts, and
// "drained" as the nodes have nothing more to do for it.
func Run(ctx context.Context, settings Settings, plan *Plan, progress io.Writer) (*Summary, error) {
	nodes := len(settings.Nodes)
	watches := make([]*headers, nodes)
	for index, node := range settings.Nodes {
		var err error
		if watches[index], err = watch(ctx, node); err != nil {
			return nil, err
		}
		defer func() { _ = watches[index].client.Stop() }()
	}

	start := time.Now().Add(lead)
	due := func(index int) time.Time {
		return start.Add(time.Duration(index) * time.Second / time.Duration(settings.Rate))
	}
	// A node that holds up its connections does not get more time; what is late by then counts as not served.
	stop := start.Add(settings.Duration + time.Second)
	answers := &answers{rejected: make(map[string]int)}
	streams := nodes * settings.Connections
	var submitting sync.WaitGroup
	for stream := range streams {
		submitting.Go(func() {
			submit(settings.Nodes[stream%nodes], plan.Requests, stream, streams, due, stop, answers)
		})
	}
	time.Sleep(time.Until(start))
	fmt.Fprintf(progress, "submitting %d a second to %d nodes\n", settings.Rate, nodes)
	submitting.Wait()
	drain(ctx, watches, time.Now().Add(settings.Drain))
	fmt.Fprintln(progress, "drained")

	summary := newSummary(settings, len(plan.Requests), answers)
	var latencies, stamped []time.Duration
	err := finalised(ctx, watches[0], func(height int64, transaction []byte) {
		index, ours := plan.Index[sha256.Sum256(transaction)]
		if !ours {
			return
		}
		summary.Finalised++
		// Streams are dealt out to nodes in turn, and transactions to streams.
		watch := watches[index%streams%nodes]
		if seen, known := watch.known(height); known {
			latencies = append(latencies, seen.Sub(due(index)))
			summary.ElapsedSeconds = max(summary.ElapsedSeconds, seen.Sub(start).Seconds())
		}
		// What CometBFT's report tool counts: the time in the next header is when this block was agreed on.
		if stamp, known := watches[0].stamped(height + 1); known {
			stamped = append(stamped, stamp.Sub(due(index)))
		}
	})
	if err != nil {
		return nil, err
	}
	summary.finish(latencies, stamped)
	return summary, nil
}

// drain waits until no node has a transaction waiting.
func drain(ctx context.Context, watches []*headers, deadline time.Time) {
	for time.Now().Before(deadline) {
		waiting := false
		for _, watch := range watches {
			pending, err := watch.client.NumUnconfirmedTxs(ctx)
			waiting = waiting || err != nil || pending.Total > 0
		}
		time.Sleep(200 * time.Millisecond)
		if !waiting {
			return
		}
	}
}

// finalised reads the blocks of the run from a node, after the clock has stopped.
func finalised(ctx context.Context, watch *headers, each func(height int64, transaction []byte)) error {
	watch.mutex.Lock()
	var heights []int64
	for height, filled := range watch.filled {
		if filled {
			heights = append(heights, height)
		}
	}
	watch.mutex.Unlock()
	slices.Sort(heights)
	for _, height := range heights {
		block, err := watch.client.Block(ctx, &height)
		if err != nil {
			return fmt.Errorf("read block %d: %w", height, err)
		}
		for _, transaction := range block.Block.Txs {
			each(height, types.Tx(transaction))
		}
	}
	return nil
}
