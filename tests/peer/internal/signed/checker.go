package signed

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"

	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519/extra/cache"
)

const (
	// Senders whose decompressed key is kept: more than the bench has.
	keysMax = 1 << 14
	// Signatures checked at once; more are hardly cheaper each.
	batchMax = 1024
)

// The rules by which CometBFT checks its own votes.
var rules = &ed25519.Options{Verify: ed25519.VerifyOptionsZIP_215}

// checker checks signatures and remembers the good ones until they are in a block.
type checker struct {
	keys *cache.Verifier

	mutex sync.Mutex
	good  map[[sha256.Size]byte]struct{}
}

func newChecker() *checker {
	return &checker{keys: cache.NewVerifier(cache.NewLRUCache(keysMax)), good: make(map[[sha256.Size]byte]struct{})}
}

// one checks a single transaction.
func (c *checker) one(transaction []byte) bool {
	if len(transaction) < SizeMin {
		return false
	}
	id := sha256.Sum256(transaction)
	if c.knows(id) {
		return true
	}
	if !c.keys.VerifyWithOptions(transaction[:keyEnd], message(transaction), transaction[keyEnd:signatureEnd], rules) {
		return false
	}
	c.remember(id)
	return true
}

// all says of each transaction whether its signature is good; those not known yet are checked in batches.
func (c *checker) all(transactions [][]byte) []bool {
	good := make([]bool, len(transactions))
	ids := make([][sha256.Size]byte, len(transactions))
	var unknown []int
	for index, transaction := range transactions {
		if len(transaction) < SizeMin {
			continue
		}
		ids[index] = sha256.Sum256(transaction)
		if good[index] = c.knows(ids[index]); !good[index] {
			unknown = append(unknown, index)
		}
	}
	for len(unknown) > 0 {
		batch := unknown[:min(batchMax, len(unknown))]
		unknown = unknown[len(batch):]
		verifier := ed25519.NewBatchVerifierWithCapacity(len(batch))
		for _, index := range batch {
			transaction := transactions[index]
			c.keys.AddWithOptions(verifier, transaction[:keyEnd], message(transaction), transaction[keyEnd:signatureEnd], rules)
		}
		_, valid := verifier.Verify(rand.Reader)
		for position, index := range batch {
			if good[index] = valid[position]; good[index] {
				c.remember(ids[index])
			}
		}
	}
	return good
}

func (c *checker) knows(id [sha256.Size]byte) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	_, known := c.good[id]
	return known
}

func (c *checker) remember(id [sha256.Size]byte) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.good[id] = struct{}{}
}

// forget lets go of transactions that are final.
func (c *checker) forget(transactions [][]byte) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, transaction := range transactions {
		delete(c.good, sha256.Sum256(transaction))
	}
}
