package devnet_test

import (
	"context"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/params"
	"github.com/ethereum/go-ethereum/rpc"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
)

func TestAccounts(t *testing.T) {
	if got := devnet.Developer(0).Address; got != common.HexToAddress("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266") {
		t.Errorf("the first developer is %s", got)
	}
	if got := devnet.Developer(9).Address; got != common.HexToAddress("0xa0Ee7A142d267C1f36714E4a8F75612F20a79720") {
		t.Errorf("the last developer is %s", got)
	}
	key, err := crypto.ToECDSA(crypto.Keccak256([]byte("payer\x00\x00\x00\x00\x00\x00\x01\x02")))
	if err != nil {
		t.Fatal(err)
	}
	payer := devnet.Payer(258)
	if payer.Address != crypto.PubkeyToAddress(key.PublicKey) || !payer.Key.Equal(key) {
		t.Error("a payer's key is not the documented one")
	}

	r := start(t, devnet.Options{Payers: 3})
	for account, want := range map[common.Address][2]uint64{
		devnet.Developer(0).Address: {10_000, 1_000_000},
		devnet.Developer(9).Address: {10_000, 1_000_000},
		devnet.Payer(0).Address:     {100, 1_000},
		devnet.Payer(2).Address:     {100, 1_000},
		devnet.Payer(3).Address:     {0, 0},
	} {
		wei, err := r.chain.Balance(r.ctx, account)
		r.must(err)
		if ether := new(uint256.Int).Mul(uint256.NewInt(want[0]), uint256.NewInt(params.Ether)); !wei.Eq(ether) {
			t.Errorf("%s has %s wei, want %s", account, wei, ether)
		}
		r.wantBalance(account, devnet.USDC(want[1]))
	}
	r.must(r.chain.Mint(r.ctx, devnet.Payer(3).Address, uint256.NewInt(5)))
	r.wantBalance(devnet.Payer(3).Address, uint256.NewInt(5))
	r.must(r.chain.Fund(r.ctx, devnet.Payer(3).Address, uint256.NewInt(7)))
	if wei, err := r.client.BalanceAt(r.ctx, devnet.Payer(3).Address, nil); err != nil || wei.Int64() != 7 {
		t.Errorf("funded with 7 wei, has %s, %v", wei, err)
	}
}

// What clients, wallets and the settlement ask an endpoint for.
func TestEndpoint(t *testing.T) {
	r := start(t, devnet.Options{SafeLag: 2, FinalizedLag: 4, Heartbeat: -1})
	network := devnet.Network()
	if id, err := r.client.ChainID(r.ctx); err != nil || id.Uint64() != network.ChainID {
		t.Errorf("the chain's id is %v, %v", id, err)
	}
	if id, err := r.client.NetworkID(r.ctx); err != nil || id.Uint64() != network.ChainID {
		t.Errorf("the network's id is %v, %v", id, err)
	}
	for _, contract := range []common.Address{network.Asset.Address, devnet.MulticallAddress} {
		if code, err := r.client.CodeAt(r.ctx, contract, nil); err != nil || len(code) == 0 {
			t.Errorf("no code at %s: %v", contract, err)
		}
	}
	for range 9 {
		r.must(r.chain.Commit())
	}
	head, err := r.client.BlockNumber(r.ctx)
	r.must(err)
	for tag, lag := range map[rpc.BlockNumber]uint64{
		rpc.LatestBlockNumber: 0, rpc.SafeBlockNumber: 2, rpc.FinalizedBlockNumber: 4,
	} {
		header, err := r.client.HeaderByNumber(r.ctx, big.NewInt(tag.Int64()))
		r.must(err)
		if got := header.Number.Uint64(); got != head-lag {
			t.Errorf("%s is block %d, want %d", tag, got, head-lag)
		}
	}
	tip, err := r.client.SuggestGasTipCap(r.ctx)
	r.must(err)
	if tip.Sign() <= 0 {
		t.Errorf("the tip is %s", tip)
	}
	history, err := r.client.FeeHistory(r.ctx, 4, nil, []float64{50})
	r.must(err)
	if len(history.BaseFee) != 5 {
		t.Errorf("a fee history of %d blocks", len(history.BaseFee))
	}
	if _, err := r.client.TransactionReceipt(r.ctx, common.Hash{1}); !errors.Is(err, ethereum.NotFound) {
		t.Errorf("the receipt of an unknown transaction: %v", err)
	}

	payer, to := devnet.Payer(1), devnet.Developer(1).Address
	before := head
	a := r.authorize(payer.Address, to, 1)
	receipt := r.succeed(devnet.Developer(0), devnet.TokenAddress,
		a.call(t, "transfer", "bytes", a.signed(t, "TransferWithAuthorization", payer)))
	logs, err := r.client.FilterLogs(r.ctx, ethereum.FilterQuery{
		FromBlock: new(big.Int).SetUint64(before), Addresses: []common.Address{devnet.TokenAddress},
		Topics: [][]common.Hash{nil, {common.BytesToHash(payer.Address.Bytes())}, {a.nonce}},
	})
	r.must(err)
	if len(logs) != 1 || logs[0].TxHash != receipt.TxHash {
		t.Errorf("looking for the authorization gave %v", logs)
	}
	// Old states stay readable.
	balance, err := r.client.CallContract(r.ctx, ethereum.CallMsg{
		To: &devnet.TokenAddress, Data: pack(t, "USDC", "balanceOf(address)", payer.Address),
	}, big.NewInt(1))
	r.must(err)
	if got := new(uint256.Int).SetBytes(balance); !got.Eq(devnet.USDC(1_000)) {
		t.Errorf("the balance at block 1 was %s", got)
	}
}

func TestManyTransactionsAtOnce(t *testing.T) {
	const count = 500
	r := start(t, devnet.Options{})
	sender, to := devnet.Developer(0), devnet.Payer(100_006).Address
	txs := make([]*types.Transaction, count)
	for i := range txs {
		payer := devnet.Payer(i)
		a := r.authorize(payer.Address, to, 1)
		call := a.call(t, "transfer", "bytes", a.signed(t, "TransferWithAuthorization", payer))
		txs[i] = r.sign(sender, uint64(i), &devnet.TokenAddress, call)
	}
	begin := time.Now()
	var group sync.WaitGroup
	for part := range 10 {
		group.Go(func() {
			for i := part; i < count; i += 10 {
				if err := r.client.SendTransaction(r.ctx, txs[i]); err != nil {
					t.Errorf("transaction %d: %v", i, err)
				}
			}
		})
	}
	group.Wait()
	blocks := make(map[uint64]int)
	for i, tx := range txs {
		receipt := r.receipt(tx.Hash())
		if receipt.Status != types.ReceiptStatusSuccessful {
			t.Errorf("transaction %d reverted", i)
		}
		blocks[receipt.BlockNumber.Uint64()]++
	}
	t.Logf("%d payments in %s and %d blocks", count, time.Since(begin), len(blocks))
	r.wantBalance(to, devnet.USDC(count))
	r.wantLead(30 * time.Second)
}

// wantLead wants the head's time not later than the wall's by more than lead.
func (r *room) wantLead(lead time.Duration) {
	r.Helper()
	head, err := r.client.HeaderByNumber(r.ctx, nil)
	r.must(err)
	if got := time.Until(time.Unix(int64(head.Time), 0)); got > lead {
		r.Errorf("the chain's time leads by %s, more than %s", got, lead)
	}
}

func TestChainTimeLeadIsBounded(t *testing.T) {
	for name, o := range map[string]devnet.Options{
		"on demand": {MaxLead: 2 * time.Second},
		"by time":   {MaxLead: 2 * time.Second, BlockTime: 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, o)
			sender := devnet.Developer(0)
			var heads []uint64
			for nonce := uint64(0); len(heads) < 5; nonce++ {
				tx := r.sign(sender, nonce, &sender.Address, nil)
				r.must(r.client.SendTransaction(r.ctx, tx))
				heads = append(heads, r.receipt(tx.Hash()).BlockNumber.Uint64())
				r.wantLead(2 * time.Second)
			}
			if heads[len(heads)-1]-heads[0] < 4 {
				t.Errorf("the transactions came into the blocks %v", heads)
			}
		})
	}
}

func TestHeartbeatKeepsTheHeadFresh(t *testing.T) {
	r := start(t, devnet.Options{Heartbeat: time.Second})
	first, err := r.client.BlockNumber(r.ctx)
	r.must(err)
	for {
		head, err := r.client.HeaderByNumber(r.ctx, nil)
		r.must(err)
		if head.Number.Uint64() >= first+2 {
			break
		}
		select {
		case <-r.ctx.Done():
			t.Fatal("no empty blocks")
		case <-time.After(50 * time.Millisecond):
		}
	}
	r.wantLead(0)
}

func TestStall(t *testing.T) {
	r := start(t, devnet.Options{})
	sender := devnet.Developer(0)
	r.chain.Stall()
	before, err := r.client.BlockNumber(r.ctx)
	r.must(err)
	send := func(nonce uint64) common.Hash {
		tx := r.sign(sender, nonce, &sender.Address, nil)
		r.must(r.client.SendTransaction(r.ctx, tx))
		return tx.Hash()
	}
	pending := func(hash common.Hash) {
		t.Helper()
		if _, err := r.client.TransactionReceipt(r.ctx, hash); !errors.Is(err, ethereum.NotFound) {
			t.Errorf("asking for the receipt on a stalled chain: %v", err)
		}
		if _, waits, err := r.client.TransactionByHash(r.ctx, hash); err != nil || !waits {
			t.Errorf("the transaction waits: %v, %v", waits, err)
		}
	}
	first := send(0)
	time.Sleep(300 * time.Millisecond) // as long as a chain that is not stalled would never take
	pending(first)
	if n, err := r.client.BlockNumber(r.ctx); err != nil || n != before {
		t.Errorf("the head went on from %d to %d, %v", before, n, err)
	}

	r.must(r.chain.Commit())
	if got := r.receipt(first).BlockNumber.Uint64(); got != before+1 {
		t.Errorf("committed in block %d, want %d", got, before+1)
	}

	second := send(1)
	pending(second)
	r.must(r.chain.DropPending())
	if _, _, err := r.client.TransactionByHash(r.ctx, second); !errors.Is(err, ethereum.NotFound) {
		t.Errorf("a dropped transaction is still known: %v", err)
	}
	if n, err := r.client.PendingNonceAt(r.ctx, sender.Address); err != nil || n != 1 {
		t.Errorf("the next nonce is %d, %v", n, err)
	}

	third := send(1)
	r.chain.Resume()
	r.receipt(third)
}

// What was accepted before Commit is in the block that Commit makes, however shortly before.
func TestCommitTakesAllThatWaits(t *testing.T) {
	r := start(t, devnet.Options{})
	r.chain.Stall()
	sender := devnet.Developer(0)
	const rounds, each = 40, 10
	for round := range uint64(rounds) {
		var last *types.Transaction
		for i := range uint64(each) {
			last = r.sign(sender, round*each+i, &sender.Address, nil)
			r.must(r.client.SendTransaction(r.ctx, last))
		}
		r.must(r.chain.Commit())
		if nonce, err := r.client.NonceAt(r.ctx, sender.Address, nil); err != nil || nonce != (round+1)*each {
			t.Fatalf("after block %d: %d transactions, %v; want %d", round+1, nonce, err, (round+1)*each)
		}
	}
	gap := r.sign(sender, rounds*each+1, &sender.Address, nil)
	r.must(r.client.SendTransaction(r.ctx, gap))
	r.must(r.chain.Commit())
	if nonce, err := r.client.NonceAt(r.ctx, sender.Address, nil); err != nil || nonce != rounds*each {
		t.Errorf("a transaction that can't go yet went: %d, %v", nonce, err)
	}
}

func TestAdvanceTime(t *testing.T) {
	r := start(t, devnet.Options{})
	before := r.now()
	r.must(r.chain.AdvanceTime(time.Hour))
	if passed := r.now().Sub(before); passed < time.Hour || passed > time.Hour+time.Minute {
		t.Errorf("an hour on, %s have passed", passed)
	}
	sender := devnet.Developer(0)
	tx := r.sign(sender, 0, &sender.Address, nil)
	r.must(r.client.SendTransaction(r.ctx, tx))
	r.receipt(tx.Hash()) // the hour does not count as a lead that the wall must catch up with
}

// A client that has seen a receipt asks next for what it changed, and must not be told of before.
func TestAnswersDoNotGoBack(t *testing.T) {
	r := start(t, devnet.Options{Heartbeat: -1})
	sender := devnet.Developer(0)
	r.chain.Stall()
	for nonce := range uint64(200) {
		tx := r.sign(sender, nonce, &sender.Address, nil)
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for {
					receipt, err := r.client.TransactionReceipt(r.ctx, tx.Hash())
					if errors.Is(err, ethereum.NotFound) {
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					head, err := r.client.BlockNumber(r.ctx)
					if err != nil || head < receipt.BlockNumber.Uint64() {
						t.Errorf("a receipt in block %s, but the head is %d, %v", receipt.BlockNumber, head, err)
					}
					nonce, err := r.client.NonceAt(r.ctx, sender.Address, nil)
					if err != nil || nonce != tx.Nonce()+1 {
						t.Errorf("transaction %d is in a block, but the nonce is %d, %v", tx.Nonce(), nonce, err)
					}
					return
				}
			})
		}
		r.must(r.client.SendTransaction(r.ctx, tx))
		r.must(r.chain.Commit())
		group.Wait()
	}
}

func TestReorganize(t *testing.T) {
	for name, drop := range map[string]bool{"kept": false, "dropped": true} {
		t.Run(name, func(t *testing.T) {
			r := start(t, devnet.Options{Heartbeat: -1})
			payer, to := devnet.Payer(7), devnet.Payer(100_007).Address
			r.must(r.chain.Commit())
			a := r.authorize(payer.Address, to, 5)
			receipt := r.succeed(devnet.Developer(0), devnet.TokenAddress,
				a.call(t, "transfer", "bytes", a.signed(t, "TransferWithAuthorization", payer)))
			r.chain.Stall()
			r.must(r.chain.Reorganize(1, drop))

			r.wantBalance(to, new(uint256.Int))
			if _, err := r.client.TransactionReceipt(r.ctx, receipt.TxHash); !errors.Is(err, ethereum.NotFound) {
				t.Errorf("the receipt of an undone transaction: %v", err)
			}
			head, err := r.client.HeaderByNumber(r.ctx, nil)
			r.must(err)
			if want := receipt.BlockNumber.Uint64() + 1; head.Number.Uint64() != want {
				t.Errorf("the head is block %d, want %d", head.Number, want)
			}
			replaced, err := r.client.HeaderByNumber(r.ctx, receipt.BlockNumber)
			r.must(err)
			if replaced.Hash() == receipt.BlockHash {
				t.Error("the block was not replaced")
			}
			r.must(r.chain.Commit())
			if drop {
				r.wantBalance(to, new(uint256.Int))
				return
			}
			if again := r.receipt(receipt.TxHash); again.BlockNumber.Cmp(receipt.BlockNumber) <= 0 {
				t.Errorf("mined again in block %s", again.BlockNumber)
			}
			r.wantBalance(to, devnet.USDC(5))
		})
	}
	r := start(t, devnet.Options{})
	if err := r.chain.Reorganize(1000, false); err == nil {
		t.Error("more was undone than there is")
	}
}

func TestManyChains(t *testing.T) {
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			ctx := t.Context()
			chain, err := devnet.Start(ctx, devnet.Options{Payers: 10})
			if err != nil {
				t.Error(err)
				return
			}
			if err := chain.Mint(ctx, common.Address{9}, uint256.NewInt(uint64(i)+1)); err != nil {
				t.Error(err)
			}
			if got, err := chain.TokenBalance(ctx, common.Address{9}); err != nil || got.Uint64() != uint64(i)+1 {
				t.Errorf("chain %d: the balance is %s, %v", i, got, err)
			}
			if err := errors.Join(chain.Close(), chain.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func TestStartFails(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer closeOrFail(t, listener)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		addr string
		want string
	}{
		"address in use": {t.Context(), listener.Addr().String(), "address already in use"},
		"no port":        {t.Context(), "localhost", "missing port"},
		"canceled":       {canceled, "", context.Canceled.Error()},
	} {
		chain, err := devnet.Start(c.ctx, devnet.Options{Addr: c.addr})
		if err == nil {
			closeOrFail(t, chain)
			t.Errorf("%s: started", name)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want: %s", name, err, c.want)
		}
	}
}

func TestClosedEndpointIsGone(t *testing.T) {
	chain, err := devnet.Start(t.Context(), devnet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	client, err := ethclient.Dial(chain.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	closeOrFail(t, chain)
	if _, err := client.ChainID(t.Context()); err == nil {
		t.Error("a closed chain answers")
	}
}

func closeOrFail(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
