package load

import (
	"slices"
	"time"
)

// Summary is the figures of a run, named as `bizra-node load` names its own.
type Summary struct {
	Targets            int            `json:"targets"`
	Rate               int            `json:"rate"`
	Offered            int            `json:"offered"`
	Sent               int            `json:"sent"`
	Admitted           int            `json:"admitted"`
	Rejected           map[string]int `json:"rejected"`
	Finalised          int            `json:"finalised"`
	Applied            int            `json:"applied"`
	ElapsedSeconds     float64        `json:"elapsedSeconds"`
	FinalisedPerSecond float64        `json:"finalisedPerSecond"`
	// From the scheduled submit to the notice of finality at the client.
	Latency Latency `json:"latencyMilliseconds"`
	// From the scheduled submit to the time in the next block's header, as CometBFT's own report counts.
	HeaderLatency Latency  `json:"headerLatencyMilliseconds"`
	Errors        []string `json:"errors"`
}

// Latency is percentiles, milliseconds.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
}

func newSummary(settings Settings, offered int, answers *answers) *Summary {
	return &Summary{
		Targets: len(settings.Nodes), Rate: settings.Rate, Offered: offered,
		Sent: answers.sent, Admitted: answers.admitted, Rejected: answers.rejected, Errors: answers.errors,
	}
}

func (s *Summary) finish(latencies, stamped []time.Duration) {
	s.Applied = s.Finalised
	if s.ElapsedSeconds > 0 {
		s.FinalisedPerSecond = float64(s.Finalised) / s.ElapsedSeconds
	}
	s.Latency, s.HeaderLatency = percentiles(latencies), percentiles(stamped)
}

func percentiles(times []time.Duration) Latency {
	if len(times) == 0 {
		return Latency{}
	}
	slices.Sort(times)
	milliseconds := func(time time.Duration) float64 { return float64(time.Microseconds()) / 1000 }
	at := func(percent int) float64 { return milliseconds(times[min(len(times)*percent/100, len(times)-1)]) }
	var sum time.Duration
	for _, time := range times {
		sum += time
	}
	return Latency{
		Mean: milliseconds(sum / time.Duration(len(times))),
		P50:  at(50), P95: at(95), P99: at(99), Max: milliseconds(times[len(times)-1]),
	}
}
