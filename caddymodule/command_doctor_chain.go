package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/management/doctor"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

// doctorChain asks one network.
type doctorChain struct {
	network x402.Network
	rpc     []string
	client  *chain.Client
	http    *http.Client
}

func newDoctorChain(n x402.Network, a *App) (*doctorChain, error) {
	c := &doctorChain{network: n, http: &http.Client{Timeout: 5 * time.Second}}
	for _, configured := range a.Networks {
		if configured != nil && configured.network.ID == n.ID && configured.network.Asset.Address == n.Asset.Address {
			c.rpc = configured.rpc
		}
	}
	if len(c.rpc) == 0 {
		return c, nil // each question then says so
	}
	var err error
	if c.client, err = chain.New(chain.Config{Endpoints: c.rpc, ChainID: n.ChainID}); err != nil {
		return nil, invalidRequest("rpc of %s: %v", n.ID, err)
	}
	return c, nil
}

func (c *doctorChain) close() {
	c.http.CloseIdleConnections()
	if c.client != nil {
		_ = c.client.Close()
	}
}

var errNoEndpoint = errors.New("rpc has no address that can be asked")

// Endpoints implements doctor.Chain. An endpoint's address may hold a key, and so may what is said of it.
func (c *doctorChain) Endpoints(ctx context.Context) []doctor.Endpoint {
	if len(c.rpc) == 0 {
		return []doctor.Endpoint{{Problem: errNoEndpoint.Error()}}
	}
	var out []doctor.Endpoint
	for _, address := range c.rpc {
		out = append(out, c.endpoint(ctx, address))
	}
	return out
}

func (c *doctorChain) endpoint(ctx context.Context, address string) (out doctor.Endpoint) {
	const question = `{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}`
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader([]byte(question)))
	if err != nil {
		out.Problem = "its address can't be asked"
		return out
	}
	r.Header.Set("Content-Type", "application/json")
	asked := time.Now()
	res, err := c.http.Do(r)
	if err != nil {
		out.Problem = "it does not answer"
		return out
	}
	defer func() { _ = res.Body.Close() }()
	took := time.Since(asked)
	var answer struct {
		Result hexutil.Uint64 `json:"result"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<16)).Decode(&answer); err != nil || res.StatusCode != http.StatusOK {
		out.Problem = fmt.Sprintf("it answers with status %d, and with no chain", res.StatusCode)
		return out
	}
	out.ChainID = uint64(answer.Result)
	if date, err := http.ParseTime(res.Header.Get("Date")); err == nil {
		// The answer was dated within the time it took, to the second below.
		out.Dated, out.Ahead = true, asked.Add(took/2).Sub(date.Add(500*time.Millisecond))
	}
	return out
}

func (c *doctorChain) call(ctx context.Context, data []byte) ([]byte, error) {
	if c.client == nil {
		return nil, errNoEndpoint
	}
	return c.client.Call(ctx, chain.Message{To: c.network.Asset.Address, Data: data})
}

// flag asks a function that only some assets have; those that have it not say no.
func (c *doctorChain) flag(ctx context.Context, data []byte) (bool, error) {
	b, err := c.call(ctx, data)
	if _, reverted := errors.AsType[*chain.RevertError](err); reverted || err == nil && len(b) == 0 {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return x402.ParseBool(b)
}

// Token implements doctor.Chain.
func (c *doctorChain) Token(ctx context.Context) (t doctor.Token, err error) {
	b, err := c.call(ctx, x402.DomainSeparatorCalldata())
	if err != nil {
		return t, fmt.Errorf("asking for its signing domain: %w", err)
	}
	t.Separator = common.BytesToHash(b)
	if b, err = c.call(ctx, x402.DecimalsCalldata()); err != nil {
		return t, fmt.Errorf("asking for its decimals: %w", err)
	}
	n, err := x402.ParseUint256(b)
	if err != nil {
		return t, fmt.Errorf("asking for its decimals: %w", err)
	}
	t.Decimals = uint8(min(n.Uint64(), 255))
	t.Paused, err = c.flag(ctx, crypto.Keccak256([]byte("paused()"))[:4])
	return t, err
}

// Blacklisted implements doctor.Chain.
func (c *doctorChain) Blacklisted(ctx context.Context, a common.Address) (bool, error) {
	return c.flag(ctx, slices.Concat(crypto.Keccak256([]byte("isBlacklisted(address)"))[:4], common.LeftPadBytes(a.Bytes(), 32)))
}

// Ether implements doctor.Chain.
func (c *doctorChain) Ether(ctx context.Context, a common.Address) (*big.Int, error) {
	if c.client == nil {
		return nil, errNoEndpoint
	}
	return c.client.Balance(ctx, a)
}

// Balance implements doctor.Chain.
func (c *doctorChain) Balance(ctx context.Context, a common.Address) (n uint256.Int, err error) {
	b, err := c.call(ctx, x402.BalanceOfCalldata(a))
	if err != nil {
		return n, err
	}
	return x402.ParseUint256(b)
}

// Succeeded implements doctor.Chain.
func (c *doctorChain) Succeeded(ctx context.Context, hash common.Hash) (bool, error) {
	if c.client == nil {
		return false, errNoEndpoint
	}
	r, err := c.client.Receipt(ctx, hash)
	return err == nil && r != nil && r.OK, err
}

// Interface guard.
var _ doctor.Chain = (*doctorChain)(nil)
