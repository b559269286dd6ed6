package chaos

import (
	"context"
	"fmt"
	"math/big"
	"slices"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// The events of the token, by their signatures.
var (
	topicTransfer = crypto.Keccak256Hash([]byte("Transfer(address,address,uint256)"))
	topicUsed     = crypto.Keccak256Hash([]byte("AuthorizationUsed(address,bytes32)"))
)

// transfer is money that reached the seller, or left the refund wallet.
type transfer struct {
	from   common.Address
	to     common.Address
	nonce  common.Hash
	amount *big.Int
	tx     common.Hash
	block  uint64
}

// books are what the chain says, read with go-ethereum's client and nothing of ours.
type books struct {
	transfers []transfer
	// backs are what the refund wallet paid.
	backs []transfer
	// strangers are transfers that no authorization made.
	strangers []string
	wallets   map[common.Address]used
}

// used is how many transactions of a gas wallet were mined, and how many wait besides.
type used struct{ sent, pending uint64 }

func readChain(ctx context.Context, url string) (books, error) {
	var b books
	c, err := ethclient.DialContext(ctx, url)
	if err != nil {
		return b, err
	}
	defer c.Close()
	logs, err := c.FilterLogs(ctx, ethereum.FilterQuery{FromBlock: new(big.Int), Addresses: []common.Address{devnet.TokenAddress}})
	if err != nil {
		return b, fmt.Errorf("reading logs: %w", err)
	}
	for i := range logs {
		b.add(logs, i)
	}
	b.wallets, err = readWallets(ctx, c)
	return b, err
}

func readWallets(ctx context.Context, c *ethclient.Client) (map[common.Address]used, error) {
	all := make(map[common.Address]used)
	for i := range wallets {
		a := gasWallet(i).Address
		sent, err := c.NonceAt(ctx, a, nil)
		if err != nil {
			return nil, err
		}
		next, err := c.PendingNonceAt(ctx, a)
		if err != nil {
			return nil, err
		}
		all[a] = used{sent, next - sent}
	}
	return all, nil
}

// add takes the i-th log, if it is a transfer to the seller or from the refund wallet. The log before it says by which authorization.
func (b *books) add(logs []types.Log, i int) {
	l := &logs[i]
	if len(l.Topics) != 3 || l.Topics[0] != topicTransfer {
		return
	}
	t := transfer{
		from: common.BytesToAddress(l.Topics[1][:]), to: common.BytesToAddress(l.Topics[2][:]), amount: new(big.Int).SetBytes(l.Data), tx: l.TxHash, block: l.BlockNumber,
	}
	if t.to != rig.PayTo && t.from != refundWallet.Address {
		return
	}
	if i > 0 {
		used := &logs[i-1]
		if used.TxHash == l.TxHash && used.Index+1 == l.Index && len(used.Topics) == 3 && used.Topics[0] == topicUsed &&
			common.BytesToAddress(used.Topics[1][:]) == t.from {
			t.nonce = used.Topics[2]
			if t.from == refundWallet.Address {
				b.backs = append(b.backs, t)
			} else {
				b.transfers = append(b.transfers, t)
			}
			return
		}
	}
	b.strangers = append(b.strangers, fmt.Sprintf("%s from %s to %s in %s", t.amount, t.from, t.to, t.tx))
}

func tokenBalance(ctx context.Context, c *ethclient.Client, of common.Address) (*big.Int, error) {
	data := slices.Concat(crypto.Keccak256([]byte("balanceOf(address)"))[:4], common.LeftPadBytes(of[:], 32))
	out, err := c.CallContract(ctx, ethereum.CallMsg{To: &devnet.TokenAddress, Data: data}, nil)
	return new(big.Int).SetBytes(out), err
}

func headOf(ctx context.Context, url string) (uint64, error) {
	c, err := ethclient.DialContext(ctx, url)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return c.BlockNumber(ctx)
}
