// Package load offers transactions to CometBFT by schedule and times each from the moment it was scheduled to the moment a client
// knows that its block is final.
package load

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"

	"bizra.io/peer/internal/signed"
	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
)

// What kvstore stores everything under, as CometBFT's own load tool does: its database stays small.
const kvstorePrefix = "a="

// Plan is everything that will be submitted, ready to send.
type Plan struct {
	// Requests are JSON-RPC calls.
	Requests [][]byte
	// Index finds a transaction by its hash.
	Index map[[sha256.Size]byte]int
}

// Opaque plans transactions for kvstore: a key and random hexadecimal digits.
func Opaque(count, size int, run uint64) (*Plan, error) {
	if size%2 != 0 || size < len(kvstorePrefix)+32 {
		return nil, fmt.Errorf("a transaction for kvstore has an even number of bytes, at least 34, not %d", size)
	}
	return plan(count, func(index int) ([]byte, error) {
		value := make([]byte, (size-len(kvstorePrefix))/2)
		binary.BigEndian.PutUint64(value, run)
		binary.BigEndian.PutUint64(value[8:], uint64(index))
		for position := 16; position < len(value); position++ {
			value[position] = byte(rand.Uint32())
		}
		return hex.AppendEncode([]byte(kvstorePrefix), value), nil
	})
}

// Signed plans transactions of the application `signed`, from its accounts in turn.
func Signed(count, size, accounts int, run uint64) (*Plan, error) {
	if accounts < 1 {
		return nil, fmt.Errorf("at least one account has to send")
	}
	keys := make([]ed25519.PrivateKey, accounts)
	for index := range keys {
		seed := sha256.Sum256(fmt.Appendf(nil, "bizra peer account %d", index))
		keys[index] = ed25519.NewKeyFromSeed(seed[:])
	}
	return plan(count, func(index int) ([]byte, error) {
		return signed.Sign(keys[index%accounts], run, uint64(index), size)
	})
}

// plan makes the transactions on all cores.
func plan(count int, transaction func(index int) ([]byte, error)) (*Plan, error) {
	plan := &Plan{Requests: make([][]byte, count), Index: make(map[[sha256.Size]byte]int, count)}
	hashes := make([][sha256.Size]byte, count)
	workers := runtime.GOMAXPROCS(0)
	failures := make([]error, workers)
	var working sync.WaitGroup
	for worker := range workers {
		working.Go(func() {
			for index := worker; index < count && failures[worker] == nil; index += workers {
				bytes, err := transaction(index)
				failures[worker] = err
				hashes[index] = sha256.Sum256(bytes)
				plan.Requests[index] = request(index, bytes)
			}
		})
	}
	working.Wait()
	for _, err := range failures {
		if err != nil {
			return nil, err
		}
	}
	for index, hash := range hashes {
		plan.Index[hash] = index
	}
	return plan, nil
}

func request(index int, transaction []byte) []byte {
	text := fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":"broadcast_tx_sync","params":{"tx":"`, index)
	text = base64.StdEncoding.AppendEncode(text, transaction)
	return append(text, `"}}`...)
}
