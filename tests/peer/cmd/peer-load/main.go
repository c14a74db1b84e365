// Command peer-load offers transactions to CometBFT validators at a fixed rate and prints the figures of the run as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"bizra.io/peer/internal/load"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "peer-load:", err)
		os.Exit(1)
	}
}

func run() error {
	var settings load.Settings
	nodes := flag.String("nodes", "", "RPC addresses of the validators, host:port, separated by commas")
	transactions := flag.String("transactions", "opaque", "opaque (for kvstore) or signed")
	accounts := flag.Int("accounts", 10_000, "how many accounts send signed transactions")
	size := flag.Int("size", 256, "length of a transaction, bytes")
	flag.IntVar(&settings.Rate, "rate", 1000, "transactions a second")
	flag.DurationVar(&settings.Duration, "duration", 10*time.Second, "how long")
	flag.IntVar(&settings.Connections, "connections", 2, "connections to each validator")
	flag.DurationVar(&settings.Drain, "drain", 15*time.Second, "how long to wait for blocks afterwards")
	flag.Parse()
	if *nodes == "" || settings.Rate < 1 || settings.Connections < 1 || settings.Duration <= 0 {
		return errors.New("give --nodes; --rate, --connections and --duration must be positive")
	}
	settings.Nodes = strings.Split(*nodes, ",")

	count := int(float64(settings.Rate) * settings.Duration.Seconds())
	id := uint64(time.Now().UnixNano())
	var plan *load.Plan
	var err error
	switch *transactions {
	case "opaque":
		plan, err = load.Opaque(count, *size, id)
	case "signed":
		plan, err = load.Signed(count, *size, *accounts, id)
	default:
		err = fmt.Errorf("--transactions is %q; it must be opaque or signed", *transactions)
	}
	if err != nil {
		return err
	}
	summary, err := load.Run(context.Background(), settings, plan, os.Stderr)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(summary)
}
