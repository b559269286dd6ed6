package wallet

import (
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/caddymodule"
	_ "github.com/caddy-x402/caddy-x402/caddymodule/signers/kms"
	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/settlementtest"
	"github.com/caddy-x402/caddy-x402/settlement/signer/kms/kmstest"
)

// withKMS is a wallet whose key is at a service: a fake of AWS' API with a real key behind it.
func withKMS(server *kmstest.Server, more ...string) *Wallet {
	return &Wallet{SignersRaw: []json.RawMessage{json.RawMessage(fmt.Sprintf(
		`{"signer": "aws_kms", "key": %q, "region": %q, "endpoint": %q, "access_key_id": %q, "secret_access_key": %q, "timeout": "3s"}`,
		kmstest.Alias, kmstest.Region, server.URL(), kmstest.AccessKeyID, kmstest.SecretAccessKey))}, Keys: more}
}

// paying is a case whose settler is the purse of w.
func paying(t *testing.T, w *Wallet) *settlementtest.Case {
	t.Helper()
	dev, err := devnet.Start(t.Context(), devnet.Options{Heartbeat: -1, SafeLag: settlementtest.SafeLag})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	h := &settlementtest.Harness{
		Chain: dev, Network: devnet.Network(), Account: func(i int) *ecdsa.PrivateKey { return devnet.Payer(i).Key },
		New: func(testing.TB, settlementtest.Setup) settlement.Settler { return nil },
	}
	c := settlementtest.NewCase(t, h)
	started(t, w, caddymodule.SettlerContext{
		Network: devnet.Network(), Local: true, Journal: c.Journal, Ledger: t.Name(), RPC: []string{c.Proxy.URL()},
	})
	c.Settler = w.purse.Value()
	return c
}

// Payments are settled by a wallet whose key nobody here has.
func TestKeyAtAService(t *testing.T) {
	key := devnet.Developer(4)
	server := kmstest.New(t, key.Key)
	c := paying(t, withKMS(server))
	for range 5 {
		in := c.Claimed()
		c.WantSettled(in, c.Settle(in))
		if tx := c.WantRecorded(in, 1)[0]; tx.Wallet != key.Address {
			t.Errorf("sent by %s, want %s", tx.Wallet, key.Address)
		}
	}
	c.WantReceived(5)
	c.Must(c.Settler.Ready(c.Ctx()))
}

// A service that does not answer at the start refuses payments until it does; one that stops answering leaves those under way
// unknown, and nothing is sent twice.
func TestServiceThatDoesNotAnswer(t *testing.T) {
	server := kmstest.New(t, devnet.Developer(4).Key)
	down := func(kmstest.Request) *kmstest.Fault { return &kmstest.Fault{Status: http.StatusServiceUnavailable} }
	server.SetFault(down)
	c := paying(t, withKMS(server))
	in := c.Sign(c.Payer, nil)
	if _, err := c.Settler.Check(c.Ctx(), in); !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("Check: %v", err)
	}
	if out := c.Settle(in); out.Status != settlement.Unknown || !errors.Is(out.Err, settlement.ErrUnavailable) {
		t.Errorf("Settle: %+v", out)
	}
	if err := c.Settler.Ready(c.Ctx()); !errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("Ready: %v", err)
	}
	server.SetFault(nil)
	c.WaitFor("the service is asked again", func() bool { return c.Settler.Ready(c.Ctx()) == nil })
	in = c.Claim(in)
	server.SetFault(down)
	if out := c.Settle(in); out.Status != settlement.Unknown {
		t.Errorf("got %+v", out)
	}
	c.WantRecorded(in, 0)
	server.SetFault(nil)
	c.WantSettled(in, c.Settle(in))
	c.WantReceived(1)
}

// What the service says for good refuses the configuration; and no wallet may be there twice.
func TestServiceThatRefuses(t *testing.T) {
	server := kmstest.New(t, devnet.Developer(4).Key)
	first, _ := chains(t)
	server.SetKey(kmstest.KeyID, kmstest.Key{Private: devnet.Developer(4).Key, State: "Disabled"})
	w := provisioned(t, withKMS(server), in(t, first))
	if err := w.Start(t.Context(), in(t, first)); err == nil || errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("a disabled key: %v", err)
	}
	server.SetKey(kmstest.KeyID, kmstest.Key{Private: devnet.Developer(4).Key})
	twice := withKMS(server, fmt.Sprintf("%x", crypto.FromECDSA(devnet.Developer(4).Key)))
	provisioned(t, twice, in(t, first))
	if err := twice.Start(t.Context(), in(t, first)); err == nil || errors.Is(err, settlement.ErrUnavailable) {
		t.Errorf("the same wallet twice: %v", err)
	}
}
