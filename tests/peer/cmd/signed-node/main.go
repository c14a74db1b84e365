// Command signed-node is `cometbft` with the signature-checking application built in: `signed-node start --proxy_app signed`.
package main

import (
	"fmt"
	"os"

	"bizra.io/peer/internal/signed"
	"github.com/cometbft/cometbft/cmd/cometbft/commands"
	settings "github.com/cometbft/cometbft/config"
	"github.com/cometbft/cometbft/libs/cli"
	"github.com/cometbft/cometbft/libs/log"
	"github.com/cometbft/cometbft/node"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	"github.com/cometbft/cometbft/proxy"
)

func main() {
	commands.RootCmd.AddCommand(commands.NewRunNodeCmd(newNode))
	command := cli.PrepareBaseCmd(commands.RootCmd, "CMT", ".")
	if err := command.Execute(); err != nil {
		os.Exit(1)
	}
}

// newNode is node.DefaultNewNode with our application; mempool and consensus each have their own lock on it, so that checks at
// admission do not hold up blocks.
func newNode(config *settings.Config, logger log.Logger) (*node.Node, error) {
	switch config.ProxyApp {
	case signed.AtAdmission, signed.InBlocks:
	default:
		return nil, fmt.Errorf("--proxy_app is %q; it must be %q or %q", config.ProxyApp, signed.AtAdmission, signed.InBlocks)
	}
	key, err := p2p.LoadOrGenNodeKey(config.NodeKeyFile())
	if err != nil {
		return nil, fmt.Errorf("read the node key %s: %w", config.NodeKeyFile(), err)
	}
	return node.NewNode(
		config,
		privval.LoadOrGenFilePV(config.PrivValidatorKeyFile(), config.PrivValidatorStateFile()),
		key,
		proxy.NewConnSyncLocalClientCreator(signed.NewApplication(config.ProxyApp)),
		node.DefaultGenesisDocProviderFunc(config),
		settings.DefaultDBProvider,
		node.DefaultMetricsProvider(config.Instrumentation),
		logger,
	)
}
