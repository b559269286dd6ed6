// Package facilitator is a facilitator for tests: it settles on a local chain, and lies, fails and dawdles on demand.
package facilitator

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Server is a facilitator. What it does with a payment is said by Behave; without that it is honest.
type Server struct {
	// Key pays the gas.
	Key *ecdsa.PrivateKey

	server *httptest.Server
	chain  *ethclient.Client

	mu       sync.Mutex
	versions []int
	behave   func(*Call) Reply
	calls    []Request
	nonce    uint64
	counted  bool

	sending sync.Mutex
}

// Request is what reached the server.
type Request struct {
	Method, Path string
	Header       http.Header
	Body         []byte
}

// Call is a request to /verify or /settle.
type Call struct {
	Request
	// N counts the calls of this path, from 1.
	N int
	// Version, Payload and Requirements are the members of the body.
	Version      int
	Payload      json.RawMessage
	Requirements json.RawMessage

	server *Server
	ctx    context.Context
}

// Reply is how a call is answered. The zero value is 200 without a body.
type Reply struct {
	// Delay is how long the answer takes, or until the client has gone.
	Delay time.Duration
	// Drop cuts the connection instead of answering.
	Drop   bool
	Status int
	Header http.Header
	Body   string
}

// New starts an honest facilitator that settles through the endpoint rpc; it ends with the test.
func New(t testing.TB, rpc string, key *ecdsa.PrivateKey) *Server {
	t.Helper()
	client, err := ethclient.DialContext(t.Context(), rpc)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Key: key, chain: client, versions: []int{1, 2}}
	s.server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() {
		s.server.CloseClientConnections()
		s.server.Close()
		client.Close()
	})
	return s
}

// URL is its address.
func (s *Server) URL() string { return s.server.URL }

// Stop ends it: nobody is reached at its address any more.
func (s *Server) Stop() {
	s.server.CloseClientConnections()
	s.server.Close()
}

// Behave says how calls are answered from now on; nil: honestly.
func (s *Server) Behave(f func(*Call) Reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behave = f
}

// Speak sets the versions that it says it supports.
func (s *Server) Speak(versions ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions = versions
}

// Requests are those that came so far for a path, such as /settle.
func (s *Server) Requests(path string) (list []Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.calls {
		if r.Path == path {
			list = append(list, r)
		}
	}
	return list
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	c := &Call{Request: Request{Method: r.Method, Path: r.URL.Path, Header: r.Header.Clone(), Body: body}, server: s, ctx: r.Context()}
	s.mu.Lock()
	s.calls = append(s.calls, c.Request)
	behave := s.behave
	for _, old := range s.calls {
		if old.Path == c.Path {
			c.N++
		}
	}
	s.mu.Unlock()
	if behave == nil {
		behave = (*Call).Honest
	}
	var members struct {
		Version      int             `json:"x402Version"`
		Payload      json.RawMessage `json:"paymentPayload"`
		Requirements json.RawMessage `json:"paymentRequirements"`
	}
	if len(body) > 0 {
		if err := json.Unmarshal(body, &members); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	c.Version, c.Payload, c.Requirements = members.Version, members.Payload, members.Requirements
	behave(c).send(w, r)
}

func (p Reply) send(w http.ResponseWriter, r *http.Request) {
	if p.Delay > 0 {
		select {
		case <-time.After(p.Delay):
		case <-r.Context().Done():
			return
		}
	}
	if p.Drop {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), p.Header)
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	if p.Status == 0 {
		p.Status = http.StatusOK
	}
	w.WriteHeader(p.Status)
	_, _ = io.WriteString(w, p.Body)
}

// JSON answers with a status and an object.
func JSON(status int, v any) Reply {
	b, err := json.Marshal(v)
	if err != nil {
		return Reply{Status: http.StatusInternalServerError}
	}
	return Reply{Status: status, Body: string(b)}
}

// Honest does what it is asked for and says what it did.
func (c *Call) Honest() Reply {
	switch c.Path {
	case "/supported":
		return c.Supported()
	case "/verify":
		a, err := c.authorization()
		if err != nil {
			return JSON(http.StatusBadRequest, map[string]any{"isValid": false, "invalidReason": "invalid_payload"})
		}
		return JSON(http.StatusOK, map[string]any{"isValid": true, "payer": a.From.Hex()})
	case "/settle":
		hash, err := c.Settle()
		if err != nil {
			return c.Refuse("invalid_exact_evm_failed_to_execute_transfer", hash)
		}
		return c.Success(hash)
	}
	return Reply{Status: http.StatusNotFound}
}

// Supported lists the scheme exact on the local chain's network.
func (c *Call) Supported() Reply {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	kinds := []map[string]any{{"x402Version": 2, "scheme": "upto", "network": devnet.Network().ID}}
	for _, v := range c.server.versions {
		network := devnet.Network().ID
		if v == 1 {
			network = devnet.Network().V1Name
		}
		kinds = append(kinds, map[string]any{"x402Version": v, "scheme": "exact", "network": network})
	}
	return JSON(http.StatusOK, map[string]any{"kinds": kinds, "extensions": []string{}, "signers": map[string]any{}})
}

// Success says that hash has settled the payment.
func (c *Call) Success(hash common.Hash) Reply {
	m := map[string]any{"success": true, "transaction": hash.Hex(), "network": c.network()}
	if a, err := c.authorization(); err == nil {
		m["payer"] = a.From.Hex()
	}
	return JSON(http.StatusOK, m)
}

// Refuse says that the payment is not settled; hash may be zero.
func (c *Call) Refuse(reason string, hash common.Hash) Reply {
	m := map[string]any{"success": false, "errorReason": reason, "transaction": "", "network": c.network()}
	if hash != (common.Hash{}) {
		m["transaction"] = hash.Hex()
	}
	return JSON(http.StatusOK, m)
}

func (c *Call) network() string {
	if c.Version == 1 {
		return devnet.Network().V1Name
	}
	return devnet.Network().ID
}

func (c *Call) authorization() (a x402.Authorization, err error) {
	var p struct {
		Payload x402.ExactPayload `json:"payload"`
	}
	err = json.Unmarshal(c.Payload, &p)
	return p.Payload.Authorization, err
}

var errReverted = errors.New("the transaction reverted")

// Settle makes the transfer and waits for its block, as long as the client waits. The error may come with the hash of
// what was sent.
func (c *Call) Settle() (common.Hash, error) {
	hash, err := c.Send()
	if err != nil {
		return common.Hash{}, err
	}
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		r, err := c.server.chain.TransactionReceipt(c.ctx, hash)
		switch {
		case err == nil && r.Status == types.ReceiptStatusSuccessful:
			return hash, nil
		case err == nil:
			return hash, errReverted
		}
		select {
		case <-c.ctx.Done():
			return hash, c.ctx.Err()
		case <-time.After(pause):
		}
	}
}

// Send sends the transfer and does not wait for it; it does not hang on the client.
func (c *Call) Send() (common.Hash, error) {
	var p struct {
		Payload x402.ExactPayload `json:"payload"`
	}
	if err := json.Unmarshal(c.Payload, &p); err != nil {
		return common.Hash{}, err
	}
	data := p.Payload.Authorization.TransferCalldata(p.Payload.Signature)
	from := p.Payload.Authorization.From
	ctx := context.WithoutCancel(c.ctx)
	code, err := c.server.chain.CodeAt(ctx, from, nil)
	if err != nil {
		return common.Hash{}, err
	}
	if len(code) > 0 {
		data = p.Payload.Authorization.TransferCalldataBytes(p.Payload.Signature)
	}
	return c.server.send(ctx, data)
}

func (s *Server) send(ctx context.Context, data []byte) (common.Hash, error) {
	s.sending.Lock()
	defer s.sending.Unlock()
	if !s.counted {
		n, err := s.chain.PendingNonceAt(ctx, crypto.PubkeyToAddress(s.Key.PublicKey))
		if err != nil {
			return common.Hash{}, err
		}
		s.nonce, s.counted = n, true
	}
	chainID := new(big.Int).SetUint64(devnet.ChainID)
	tx, err := types.SignNewTx(s.Key, types.LatestSignerForChainID(chainID), &types.DynamicFeeTx{
		ChainID: chainID, Nonce: s.nonce, To: &devnet.TokenAddress, Value: new(big.Int), Data: data, Gas: 400_000,
		GasTipCap: big.NewInt(1e9), GasFeeCap: big.NewInt(100e9),
	})
	if err != nil {
		return common.Hash{}, err
	}
	if err := s.chain.SendTransaction(ctx, tx); err != nil {
		if !strings.Contains(err.Error(), "already known") {
			s.counted = false // who knows whether it arrived
		}
		return common.Hash{}, fmt.Errorf("sending: %w", err)
	}
	s.nonce++
	return tx.Hash(), nil
}
