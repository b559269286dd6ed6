package bed

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/caddy-x402/caddy-x402/devnet"
)

// anvil is Foundry's development chain, furnished like ours.
type anvil struct {
	url    string
	client *rpc.Client
}

func (a *anvil) URL() string { return a.url }

// startAnvil starts the binary that npm brought into the folder dir; it ends with the test.
func startAnvil(t testing.TB, dir string, blockTime time.Duration) *anvil {
	t.Helper()
	platform := "anvil-" + runtime.GOOS + "-" + runtime.GOARCH // npm has amd64 and arm64 under Go's names
	args := []string{"--host", "127.0.0.1", "--port", "0", "--chain-id", strconv.Itoa(devnet.ChainID)}
	if blockTime > 0 {
		args = append(args, "--block-time", strconv.Itoa(int(blockTime/time.Second)))
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "node_modules", "@foundry-rs", platform, "bin", "anvil"), args...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal("starting anvil:", err)
	}
	listening, drained := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(drained)
		follow(out, listening)
	}()
	t.Cleanup(func() {
		cancel()
		<-drained
		_ = cmd.Wait() // it was killed
	})
	select {
	case addr := <-listening:
		a := &anvil{url: "http://" + addr}
		a.furnish(t)
		return a
	case <-drained:
		t.Fatal("anvil ended before it listened")
	case <-time.After(30 * time.Second):
		t.Fatal("anvil does not listen after 30 s")
	}
	return nil
}

// follow reads what anvil prints until it ends, and tells where it listens.
func follow(out io.Reader, listening chan<- string) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if addr, ok := strings.CutPrefix(lines.Text(), "Listening on "); ok {
			listening <- strings.TrimSpace(addr)
		}
	}
	_, _ = io.Copy(io.Discard, out)
}

// minter owns the token; anvil has its key, and signs for it.
var minter = devnet.Developer(9).Address

// furnish puts the token and Multicall3 where stock clients look for them, and gives each buyer some money.
func (a *anvil) furnish(t testing.TB) {
	t.Helper()
	var err error
	if a.client, err = rpc.DialContext(t.Context(), a.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.client.Close)

	token := a.place(t, "USDC", devnet.TokenAddress)
	a.place(t, "Multicall3", devnet.MulticallAddress)
	storage, err := devnet.TokenStorage(minter)
	if err != nil {
		t.Fatal(err)
	}
	for slot, value := range storage {
		a.call(t, nil, "anvil_setStorageAt", devnet.TokenAddress, slot, value)
	}
	for i := range buyers {
		data, err := token.ABI.Pack("mint", devnet.Payer(i).Address, devnet.USDC(1000).ToBig())
		if err != nil {
			t.Fatal(err)
		}
		a.send(t, data)
	}
}

// place puts a compiled contract at an address.
func (a *anvil) place(t testing.TB, name string, at common.Address) *devnet.Contract {
	t.Helper()
	c, err := devnet.CompiledContract(name)
	if err != nil {
		t.Fatal(err)
	}
	a.call(t, nil, "anvil_setCode", at, c.Deployed)
	return c
}

// send makes the token's owner call the token, in a block that is made at once.
func (a *anvil) send(t testing.TB, data hexutil.Bytes) {
	t.Helper()
	var hash common.Hash
	a.call(t, &hash, "eth_sendTransaction", map[string]any{"from": minter, "to": devnet.TokenAddress, "data": data})
	a.call(t, nil, "evm_mine")
	receipt, err := ethclient.NewClient(a.client).TransactionReceipt(t.Context(), hash)
	if err != nil || receipt.Status != types.ReceiptStatusSuccessful {
		t.Fatalf("minting on anvil: %+v, %v", receipt, err)
	}
}

func (a *anvil) call(t testing.TB, result any, method string, args ...any) {
	t.Helper()
	if err := a.client.CallContext(t.Context(), result, method, args...); err != nil {
		t.Fatal(fmt.Errorf("%s: %w", method, err))
	}
}
