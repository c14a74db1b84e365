// Package signed is an application for CometBFT that checks the Ed25519 signature of every transaction, as cheaply as CometBFT
// and its own signature library allow.
package signed

import (
	"encoding/binary"
	"fmt"

	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
)

// A transaction: the sender's key, its signature over all that follows, and a number that makes it unique.
const (
	keyEnd       = ed25519.PublicKeySize
	signatureEnd = keyEnd + ed25519.SignatureSize
	numberEnd    = signatureEnd + 16
	// SizeMin is the length of the shortest transaction, bytes.
	SizeMin = numberEnd
)

// What is signed is not valid anywhere else.
const domain = "bizra peer bench v1"

// Sign makes a transaction of size bytes, unique by run and index.
func Sign(key ed25519.PrivateKey, run, index uint64, size int) ([]byte, error) {
	if size < SizeMin {
		return nil, fmt.Errorf("a signed transaction has at least %d bytes, not %d", SizeMin, size)
	}
	transaction := make([]byte, size)
	copy(transaction, key[ed25519.PrivateKeySize-ed25519.PublicKeySize:])
	binary.BigEndian.PutUint64(transaction[signatureEnd:], run)
	binary.BigEndian.PutUint64(transaction[signatureEnd+8:], index)
	copy(transaction[keyEnd:signatureEnd], ed25519.Sign(key, message(transaction)))
	return transaction, nil
}

func message(transaction []byte) []byte {
	return append([]byte(domain), transaction[signatureEnd:]...)
}
