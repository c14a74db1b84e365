package signed

import (
	"context"
	"encoding/binary"

	abci "github.com/cometbft/cometbft/abci/types"
)

// Where signatures are checked first.
const (
	// AtAdmission checks each transaction when it enters a node's mempool, one by one as ABCI hands them over, and of a block
	// only what the mempool has not seen. This is how applications do it.
	AtAdmission = "signed"
	// InBlocks lets everything into the mempool and checks whole blocks: fewer cycles a signature, but nothing stops forged
	// transactions from filling the mempools. Here to see what the cheaper check would bring.
	InBlocks = "signed_in_blocks"
)

const (
	codeOK           = abci.CodeTypeOK
	codeBadSignature = 1
)

// Application counts transactions with a good signature. Everything is in memory and lost when the process ends, as with CometBFT's
// own in-memory kvstore.
type Application struct {
	abci.BaseApplication

	place   string
	checker *checker

	height, transactions int64
}

// NewApplication makes an application that checks signatures at a place: AtAdmission or InBlocks.
func NewApplication(place string) *Application {
	return &Application{place: place, checker: newChecker()}
}

// Info says where the application stands.
func (a *Application) Info(context.Context, *abci.RequestInfo) (*abci.ResponseInfo, error) {
	return &abci.ResponseInfo{LastBlockHeight: a.height, LastBlockAppHash: a.hash()}, nil
}

// InitChain begins a chain.
func (a *Application) InitChain(context.Context, *abci.RequestInitChain) (*abci.ResponseInitChain, error) {
	return &abci.ResponseInitChain{AppHash: a.hash()}, nil
}

// CheckTx admits a transaction to the mempool.
func (a *Application) CheckTx(_ context.Context, request *abci.RequestCheckTx) (*abci.ResponseCheckTx, error) {
	good := len(request.Tx) >= SizeMin
	if a.place == AtAdmission {
		good = a.checker.one(request.Tx)
	}
	if !good {
		return &abci.ResponseCheckTx{Code: codeBadSignature, Log: "bad signature"}, nil
	}
	return &abci.ResponseCheckTx{Code: codeOK, GasWanted: 1}, nil
}

// PrepareProposal leaves bad transactions out of this node's block.
func (a *Application) PrepareProposal(
	_ context.Context, request *abci.RequestPrepareProposal,
) (*abci.ResponsePrepareProposal, error) {
	good := a.checker.all(request.Txs)
	transactions := make([][]byte, 0, len(request.Txs))
	for index, transaction := range request.Txs {
		if good[index] {
			transactions = append(transactions, transaction)
		}
	}
	return &abci.ResponsePrepareProposal{Txs: transactions}, nil
}

// ProcessProposal refuses another node's block if any signature in it is bad.
func (a *Application) ProcessProposal(
	_ context.Context, request *abci.RequestProcessProposal,
) (*abci.ResponseProcessProposal, error) {
	status := abci.ResponseProcessProposal_ACCEPT
	for _, good := range a.checker.all(request.Txs) {
		if !good {
			status = abci.ResponseProcessProposal_REJECT
		}
	}
	return &abci.ResponseProcessProposal{Status: status}, nil
}

// FinalizeBlock executes a block. A signature is checked again only if this node never saw the proposal, as when it catches up.
func (a *Application) FinalizeBlock(
	_ context.Context, request *abci.RequestFinalizeBlock,
) (*abci.ResponseFinalizeBlock, error) {
	results := make([]*abci.ExecTxResult, len(request.Txs))
	for index, good := range a.checker.all(request.Txs) {
		results[index] = &abci.ExecTxResult{Code: codeOK}
		if !good {
			results[index].Code = codeBadSignature
			continue
		}
		a.transactions++
	}
	a.checker.forget(request.Txs)
	a.height = request.Height
	return &abci.ResponseFinalizeBlock{TxResults: results, AppHash: a.hash()}, nil
}

// As kvstore's: the number of transactions.
func (a *Application) hash() []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(a.transactions))
}
