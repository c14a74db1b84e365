package signed

import (
	"bytes"
	"context"
	"testing"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
)

func transactions(t *testing.T, count int) [][]byte {
	t.Helper()
	all := make([][]byte, count)
	for index := range all {
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(index % 7)}, ed25519.SeedSize))
		transaction, err := Sign(key, 1, uint64(index), 256)
		if err != nil {
			t.Fatal(err)
		}
		all[index] = transaction
	}
	return all
}

// forge changes what was signed.
func forge(transaction []byte) []byte {
	forged := bytes.Clone(transaction)
	forged[len(forged)-1] ^= 1
	return forged
}

func admit(t *testing.T, application *Application, transaction []byte) bool {
	t.Helper()
	answer, err := application.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: transaction})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Code == codeOK
}

func TestASignatureIsCheckedAtAdmission(t *testing.T) {
	application := NewApplication(AtAdmission)
	transaction := transactions(t, 1)[0]
	if !admit(t, application, transaction) {
		t.Error("a good transaction was refused")
	}
	if admit(t, application, forge(transaction)) || admit(t, application, transaction[:SizeMin-1]) {
		t.Error("a forged or short transaction was admitted")
	}
}

func TestABlockWithOneForgedTransactionIsRefusedAndNeverProposed(t *testing.T) {
	ctx := context.Background()
	for _, place := range []string{AtAdmission, InBlocks} {
		application := NewApplication(place)
		block := transactions(t, batchMax+10)
		answer, err := application.ProcessProposal(ctx, &abci.RequestProcessProposal{Txs: block})
		if err != nil || answer.Status != abci.ResponseProcessProposal_ACCEPT {
			t.Errorf("%s: a good block was refused: %v %v", place, answer, err)
		}
		block[batchMax+5] = forge(block[batchMax+5])
		answer, err = application.ProcessProposal(ctx, &abci.RequestProcessProposal{Txs: block})
		if err != nil || answer.Status != abci.ResponseProcessProposal_REJECT {
			t.Errorf("%s: a block with a forged transaction was accepted: %v %v", place, answer, err)
		}
		proposal, err := application.PrepareProposal(ctx, &abci.RequestPrepareProposal{Txs: block, MaxTxBytes: 1 << 22})
		if err != nil || len(proposal.Txs) != len(block)-1 {
			t.Errorf("%s: proposed %d of %d transactions: %v", place, len(proposal.Txs), len(block), err)
		}
	}
}

func TestWhatWasCheckedIsRememberedUntilItIsFinal(t *testing.T) {
	application := NewApplication(AtAdmission)
	block := transactions(t, 5)
	for _, transaction := range block {
		admit(t, application, transaction)
	}
	if len(application.checker.good) != len(block) {
		t.Errorf("remembers %d of %d", len(application.checker.good), len(block))
	}
	answer, err := application.FinalizeBlock(context.Background(), &abci.RequestFinalizeBlock{Height: 1, Txs: block})
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range answer.TxResults {
		if result.Code != codeOK {
			t.Error("a good transaction failed")
		}
	}
	if application.transactions != 5 || len(application.checker.good) != 0 {
		t.Errorf("%d transactions, remembers %d", application.transactions, len(application.checker.good))
	}
}
