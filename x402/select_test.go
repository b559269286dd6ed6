package x402_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/x402"
)

// offers: the price of a request, then plans; the second plan costs what a request on another network does.
func offers() []x402.Requirements {
	return []x402.Requirements{
		requirements(10_000, ""),
		x402.NewRequirements(base, seller, uint256.NewInt(10_000), time.Minute, "", ""),
		requirements(10_000, "cheap"),
		requirements(1_000_000, "day"),
		requirements(1_000_000, "week"),
	}
}

func TestSelect(t *testing.T) {
	for want := range offers() {
		chosen := offers()[want]
		p := &x402.Payload{Version: 2, Scheme: chosen.Scheme, Network: chosen.Network, Accepted: &chosen}
		if got, err := x402.Select(offers(), p); err != nil || got != want {
			t.Errorf("offer %d selected %d, %v", want, got, err)
		}
	}
}

func TestSelectTolerates(t *testing.T) {
	for name, change := range map[string]func(*x402.Requirements){
		"lower case asset": func(r *x402.Requirements) { r.Asset = strings.ToLower(r.Asset) },
		"lower case payTo": func(r *x402.Requirements) { r.PayTo = strings.ToLower(r.PayTo) },
		"no timeout":       func(r *x402.Requirements) { r.MaxTimeoutSeconds = 0 },
		"no extra":         func(r *x402.Requirements) { r.Extra = x402.Extra{} },
		"its own domain":   func(r *x402.Requirements) { r.Extra.Name = "forged" },
	} {
		chosen := offers()[0]
		change(&chosen)
		if got, err := x402.Select(offers(), &x402.Payload{Version: 2, Accepted: &chosen}); err != nil || got != 0 {
			t.Errorf("%s: selected %d, %v; want 0", name, got, err)
		}
	}
}

// What a client forges selects nothing: no price, recipient, asset or network of its own, no plan that is
// not offered, and no plan's offer for another plan's.
func TestSelectRefusesForgery(t *testing.T) {
	for name, change := range map[string]func(*x402.Requirements){
		"payTo":      func(r *x402.Requirements) { r.PayTo = stranger.Hex() },
		"price":      func(r *x402.Requirements) { r.Amount = "1" },
		"price as 0": func(r *x402.Requirements) { r.Amount = "010000" },
		"asset":      func(r *x402.Requirements) { r.Asset = stranger.Hex() },
		"network":    func(r *x402.Requirements) { r.Network = "eip155:1" },
		"scheme":     func(r *x402.Requirements) { r.Scheme = "upto" },
		"plan":       func(r *x402.Requirements) { r.Extra.Plan = "year" },
		"plan's":     func(r *x402.Requirements) { r.Extra.Plan = "day" },
		"everything": func(r *x402.Requirements) { *r = x402.Requirements{} },
	} {
		forged := offers()[0]
		change(&forged)
		got, err := x402.Select(offers(), &x402.Payload{Version: 2, Accepted: &forged})
		if x402.ReasonOf(err) != x402.ReasonNoMatchingRequirements || got != -1 {
			t.Errorf("forged %s: selected %d, %v", name, got, err)
		}
	}
	if got, err := x402.Select(offers(), &x402.Payload{Version: 2, Scheme: "exact", Network: sepolia.ID}); err == nil {
		t.Errorf("no accepted: selected %d", got)
	}
}

// Version 1 names a network only, and buys the price of a request there.
func TestSelectV1(t *testing.T) {
	plansOnly := offers()[2:]
	plansFirst := slices.Concat(offers()[2:], offers()[:1], []x402.Requirements{requirements(5, "")})
	tests := []struct {
		name, scheme, network string
		offers                []x402.Requirements
		want                  int
	}{
		{"base sepolia", "exact", "base-sepolia", offers(), 0},
		{"base", "exact", "base", offers(), 1},
		{"another network", "exact", "ethereum", offers(), -1},
		{"a name of version 2", "exact", "eip155:84532", offers(), -1},
		{"another scheme", "upto", "base", offers(), -1},
		{"no name", "exact", "", offers(), -1},
		{"plans first", "exact", "base-sepolia", plansFirst, 3},
		{"plans only", "exact", "base-sepolia", plansOnly, -1},
		{"nothing offered", "exact", "base", nil, -1},
	}
	for _, tt := range tests {
		got, err := x402.Select(tt.offers, &x402.Payload{Version: 1, Scheme: tt.scheme, Network: tt.network})
		if got != tt.want || (err == nil) != (tt.want >= 0) {
			t.Errorf("%s: selected %d, %v; want %d", tt.name, got, err, tt.want)
		}
		if err != nil && x402.ReasonOf(err) != x402.ReasonNoMatchingRequirements {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// A version 1 payment can't smuggle in an accepted, nor one of another version select by name.
func TestSelectByVersionOnly(t *testing.T) {
	plan := offers()[3]
	if got, err := x402.Select(offers(), &x402.Payload{Version: 1, Scheme: "exact", Network: "base-sepolia", Accepted: &plan}); got != 0 || err != nil {
		t.Errorf("version 1 with accepted: %d, %v; want 0", got, err)
	}
	if got, err := x402.Select(offers(), &x402.Payload{Scheme: "exact", Network: "base-sepolia", Accepted: &plan}); err == nil {
		t.Errorf("no version: selected %d", got)
	}
}
