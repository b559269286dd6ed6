package devnet

import (
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/eth/ethconfig"
)

// SetMinimumTip makes blocks take only transactions whose tip, beside the base fee, is at least wei for a unit of gas: what offers less
// waits, as it does where the base fee has risen above what was offered. With refuse the node takes no others to wait either, and forgets
// those that do: it calls them below its minimum. Nil: whatever tips anything, as at the start. The operator tips 1 gwei.
func (c *Chain) SetMinimumTip(wei *big.Int, refuse bool) error {
	p := &c.blocks
	p.mu.Lock()
	defer p.mu.Unlock()
	defer poke(p.came)
	block, pool := wei, new(big.Int).SetUint64(ethconfig.Defaults.TxPool.PriceLimit)
	if wei == nil {
		block = ethconfig.Defaults.Miner.GasPrice
	} else if refuse {
		pool = wei
	}
	if err := c.eth.Miner().SetGasTip(block); err != nil {
		return fmt.Errorf("devnet: setting the least tip: %w", err)
	}
	c.eth.TxPool().SetGasTip(pool)
	return nil
}
