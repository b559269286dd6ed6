package x402_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/x402"
)

// A sound payment passes, and its signature is proven without asking the chain.
func TestVerifySound(t *testing.T) {
	a := authorization()
	p := payload(t, a, sign(t, a, payerKey))
	s := p.Identify(separator)
	if !s.Proven || s.Recovered != payer {
		t.Errorf("identified %+v, want %s proven", s, payer)
	}
	needsChain, err := p.Verify(terms(), s, now)
	if err != nil || needsChain {
		t.Errorf("Verify = %t, %v; want sound, without the chain", needsChain, err)
	}
}

func TestVerifySoundV1(t *testing.T) {
	a := authorization()
	p := payload(t, a, sign(t, a, payerKey))
	p.Version, p.Network, p.Accepted = 1, "base-sepolia", nil
	if needsChain, err := p.Verify(terms(), p.Identify(separator), now); err != nil || needsChain {
		t.Errorf("Verify = %t, %v; want sound, without the chain", needsChain, err)
	}
}

// fault is one thing that is wrong with a payment.
type fault struct {
	name string
	want x402.Reason
	make func(*x402.Payload)
}

// faults are all that Verify looks for, in the order of the reference.
var faults = []fault{
	{"scheme", x402.ReasonInvalidScheme, func(p *x402.Payload) { p.Scheme = "upto" }},
	{"network", x402.ReasonNetworkMismatch, func(p *x402.Payload) { p.Network = "eip155:8453" }},
	{"signature missing", x402.ReasonMissingSignature, func(p *x402.Payload) { p.Signature = nil }},
	{"recipient", x402.ReasonRecipientMismatch, func(p *x402.Payload) { p.Authorization.To = stranger }},
	{"value", x402.ReasonValueMismatch, func(p *x402.Payload) { p.Authorization.Value.SetUint64(9_999) }},
	{"validBefore", x402.ReasonValidBefore, func(p *x402.Payload) { p.Authorization.ValidBefore.SetUint64(uint64(now.Unix())) }},
	{"validAfter", x402.ReasonValidAfter, func(p *x402.Payload) { p.Authorization.ValidAfter.SetUint64(uint64(now.Unix()) + 1) }},
	{"signature format", x402.ReasonSignatureFormat, func(p *x402.Payload) { p.Signature = make([]byte, x402.MaxSignatureBytes+1) }},
	{"undeployed wallet", x402.ReasonUndeployedWallet, func(p *x402.Payload) { p.Signature = bytes.Repeat([]byte{0x64, 0x92}, 16) }},
}

// Of any two faults the earlier one is told; so is each alone (first and second are then the same).
func TestVerifyOrder(t *testing.T) {
	a := authorization()
	sig := sign(t, a, payerKey)
	for i, first := range faults {
		for _, second := range faults[i:] {
			p := payload(t, a, sig)
			second.make(p)
			first.make(p)
			needsChain, err := p.Verify(terms(), p.Identify(separator), now)
			if got := x402.ReasonOf(err); got != first.want || needsChain {
				t.Errorf("%s and %s: %t, %v; want %s", first.name, second.name, needsChain, err, first.want)
			}
		}
	}
}

// The edges of time and money, in the reference's sense: validBefore >= now + the margin, validAfter <= now.
func TestVerifyEdges(t *testing.T) {
	at := uint64(now.Unix())
	huge := new(uint256.Int).SetAllOne()
	tests := []struct {
		name   string
		change func(*x402.Authorization, *x402.Terms)
		want   x402.Reason
	}{
		{"ends at the margin", func(a *x402.Authorization, _ *x402.Terms) { a.ValidBefore.SetUint64(at + 15) }, ""},
		{"ends a second early", func(a *x402.Authorization, _ *x402.Terms) { a.ValidBefore.SetUint64(at + 14) }, x402.ReasonValidBefore},
		{"ended long ago", func(a *x402.Authorization, _ *x402.Terms) { a.ValidBefore.SetUint64(0) }, x402.ReasonValidBefore},
		{"ends as late as it may", func(a *x402.Authorization, _ *x402.Terms) { a.ValidBefore.SetUint64(at + 3600) }, ""},
		{"ends a second later", func(a *x402.Authorization, _ *x402.Terms) { a.ValidBefore.SetUint64(at + 3601) }, x402.ReasonValidBefore},
		{"never ends", func(a *x402.Authorization, _ *x402.Terms) { a.ValidBefore.Set(huge) }, x402.ReasonValidBefore},
		{"may end late", func(a *x402.Authorization, t *x402.Terms) {
			a.ValidBefore.SetUint64(at + 1e9)
			t.MaxValidity = 0
		}, ""},
		{"never ends, and may", func(a *x402.Authorization, t *x402.Terms) {
			a.ValidBefore.Set(huge)
			t.MaxValidity = 0
		}, x402.ReasonValidBefore},
		{"begins now", func(a *x402.Authorization, _ *x402.Terms) { a.ValidAfter.SetUint64(at) }, ""},
		{"begins in a second", func(a *x402.Authorization, _ *x402.Terms) { a.ValidAfter.SetUint64(at + 1) }, x402.ReasonValidAfter},
		{"begins never", func(a *x402.Authorization, _ *x402.Terms) { a.ValidAfter.Set(huge) }, x402.ReasonValidAfter},
		{"too little", func(a *x402.Authorization, _ *x402.Terms) { a.Value.SetUint64(9_999) }, x402.ReasonValueMismatch},
		{"too much", func(a *x402.Authorization, _ *x402.Terms) { a.Value.SetUint64(10_001) }, x402.ReasonValueMismatch},
		{"2^64 too much", func(a *x402.Authorization, _ *x402.Terms) {
			a.Value = *new(uint256.Int).Add(new(uint256.Int).Lsh(uint256.NewInt(1), 64), uint256.NewInt(10_000))
		}, x402.ReasonValueMismatch},
		{"nothing", func(a *x402.Authorization, _ *x402.Terms) { a.Value.Clear() }, x402.ReasonValueMismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, terms := authorization(), terms()
			tt.change(&a, &terms)
			p := payload(t, a, sign(t, a, payerKey))
			needsChain, err := p.Verify(terms, p.Identify(separator), now)
			if x402.ReasonOf(err) != tt.want || (tt.want == "") != (err == nil) || needsChain {
				t.Errorf("Verify = %t, %v; want %q", needsChain, err, tt.want)
			}
		})
	}
}

// Each version knows the network by its own name only.
func TestVerifyNetworkNames(t *testing.T) {
	noName := sepolia
	noName.V1Name = ""
	tests := []struct {
		version int
		name    string
		network x402.Network
		sound   bool
	}{
		{2, "eip155:84532", sepolia, true},
		{1, "base-sepolia", sepolia, true},
		{2, "base-sepolia", sepolia, false},
		{1, "eip155:84532", sepolia, false},
		{2, "EIP155:84532", sepolia, false},
		{2, "eip155:8453", sepolia, false},
		{1, "", noName, false},
		{2, "", x402.Network{}, false},
	}
	for _, tt := range tests {
		a := authorization()
		p := payload(t, a, sign(t, a, payerKey))
		p.Version, p.Network = tt.version, tt.name
		terms := terms()
		terms.Network = tt.network
		_, err := p.Verify(terms, p.Identify(separator), now)
		if (err == nil) != tt.sound || (err != nil && x402.ReasonOf(err) != x402.ReasonNetworkMismatch) {
			t.Errorf("version %d, %q: %v; want sound %t", tt.version, tt.name, err, tt.sound)
		}
	}
}

// What ECDSA can't prove is neither accepted nor refused: the chain must judge.
func TestUnprovenNeedsChain(t *testing.T) {
	a := authorization()
	good := sign(t, a, payerKey)
	tests := []struct {
		name      string
		sig       []byte
		recovered common.Address
	}{
		{"signed by a stranger", sign(t, a, strangerKey), stranger},
		{"of a wallet with several owners", bytes.Repeat(good, 3), common.Address{}},
		{"one byte", []byte{1}, common.Address{}},
		{"65 bytes that no account signs", append(make([]byte, 64), 31), common.Address{}},
		{"the twin with high s", twin(good), common.Address{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := payload(t, a, tt.sig)
			s := p.Identify(separator)
			if s.Proven || s.Recovered != tt.recovered {
				t.Errorf("identified %+v, want %s, not proven", s, tt.recovered)
			}
			if needsChain, err := p.Verify(terms(), s, now); err != nil || !needsChain {
				t.Errorf("Verify = %t, %v; want the chain to judge", needsChain, err)
			}
		})
	}
}

// A change of any signed field, or of the domain, leaves the payer unproven.
func TestIdentifyBindsEveryField(t *testing.T) {
	a := authorization()
	sig := sign(t, a, payerKey)
	changes := map[string]func(*x402.Authorization){
		"from":        func(a *x402.Authorization) { a.From = stranger },
		"to":          func(a *x402.Authorization) { a.To = stranger },
		"value":       func(a *x402.Authorization) { a.Value.AddUint64(&a.Value, 1) },
		"validAfter":  func(a *x402.Authorization) { a.ValidAfter.AddUint64(&a.ValidAfter, 1) },
		"validBefore": func(a *x402.Authorization) { a.ValidBefore.AddUint64(&a.ValidBefore, 1) },
		"nonce":       func(a *x402.Authorization) { a.Nonce[31]++ },
	}
	for name, change := range changes {
		forged := a
		change(&forged)
		if s := payload(t, forged, sig).Identify(separator); s.Proven {
			t.Errorf("%s changed, and still proven", name)
		}
	}
	d := sepolia.Domain()
	for name, forged := range map[string]x402.Domain{
		"name":     {Name: "USD Coin", Version: d.Version, ChainID: d.ChainID, Contract: d.Contract},
		"version":  {Name: d.Name, Version: "1", ChainID: d.ChainID, Contract: d.Contract},
		"chain":    {Name: d.Name, Version: d.Version, ChainID: 1, Contract: d.Contract},
		"contract": {Name: d.Name, Version: d.Version, ChainID: d.ChainID, Contract: stranger},
	} {
		if s := payload(t, a, sig).Identify(forged.Separator()); s.Proven {
			t.Errorf("another %s of the domain, and still proven", name)
		}
	}
}

// A clock before 1970 does not wrap around to the far future.
func TestVerifyBeforeTheEpoch(t *testing.T) {
	a, terms := authorization(), terms()
	terms.MaxValidity = 0
	p := payload(t, a, sign(t, a, payerKey))
	if _, err := p.Verify(terms, p.Identify(separator), time.Unix(-10_000, 0)); err != nil {
		t.Errorf("%v; want sound", err)
	}
}
