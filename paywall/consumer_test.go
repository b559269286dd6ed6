package paywall

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// roll is a list of keys.
type roll struct {
	keys  map[string]Consumer
	looks atomic.Int64
}

func (*roll) Written(shown string) bool { return strings.HasPrefix(shown, "sk_") }

func (r *roll) Find(_ context.Context, _ ledger.Store, shown string) (Consumer, error) {
	r.looks.Add(1)
	if shown == "sk_away" {
		return Consumer{}, errors.New("the ledger does not answer")
	}
	c, ok := r.keys[shown]
	if !ok {
		return Consumer{}, &ConsumerError{Status: http.StatusUnauthorized, Code: CodeAPIKeyInvalid, Detail: "there is no such API key"}
	}
	return c, nil
}

func newRoll() *roll {
	return &roll{keys: map[string]Consumer{"sk_one": {ID: "ak_one", Testnet: true}, "sk_two": {ID: "ak_two", Testnet: true}, "sk_live": {ID: "ak_live"}}}
}

// A key is known however it comes, goes no further, and tells the upstream whose it is; a client can't say that itself. What is no key of ours
// is the upstream's.
func TestConsumerKeys(t *testing.T) {
	var heard []string
	c := newCluster(t, 1, Settings{}, nil, func(g *Config) {
		g.Consumers = newRoll()
		g.Recognized = func(_ *http.Request, c Consumer) { heard = append(heard, c.ID) }
	})
	var seen http.Header
	c.serve = func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Clone() }
	for name, tc := range map[string]struct {
		header   []string
		consumer string
		kept     string // of X-Api-Key
	}{
		"its own header": {[]string{"X-Api-Key", "sk_one"}, "ak_one", ""},
		"a bearer token": {[]string{"Authorization", "Bearer sk_two"}, "ak_two", ""},
		"both":           {[]string{"X-Api-Key", "sk_one", "Authorization", "Bearer sk_two"}, "ak_one", ""},
		"none":           {[]string{"X-Payment-Consumer", "ak_one"}, "", ""},
		"the upstream's": {[]string{"X-Api-Key", "other"}, "", "other"},
		"its network":    {[]string{"X-Api-Key", "sk_one", "X-Network", "testnet"}, "ak_one", ""},
	} {
		heard, seen = nil, nil
		a := c.ask(0, http.MethodGet, "/x", "", append(tc.header, headerSignature, c.sign(0, 1, ""))...)
		if a.status != http.StatusOK || seen == nil {
			t.Fatalf("%s: %d %s", name, a.status, a.body)
		}
		if seen.Get(headerConsumer) != tc.consumer || seen.Get(headerAPIKey) != tc.kept || strings.Contains(fmt.Sprint(seen), "sk_") || strings.Join(heard, "") != tc.consumer {
			t.Errorf("%s: the upstream got %v, told %v", name, seen, heard)
		}
	}
}

// Whoever shows a key that is none, or is about networks on which nothing is sold, is refused, and charged nothing.
func TestRefusedConsumers(t *testing.T) {
	c := newCluster(t, 1, Settings{}, nil, func(g *Config) { g.Consumers = newRoll() })
	header := c.sign(0, 1, "")
	for name, tc := range map[string]struct {
		header []string
		want   string
	}{
		"an unknown key":           {[]string{"X-Api-Key", "sk_nobody"}, "401 apikey.invalid"},
		"a ledger that is away":    {[]string{"X-Api-Key", "sk_away"}, "503 ledger_unavailable"},
		"a key for mainnet":        {[]string{"X-Api-Key", "sk_live"}, "403 network_locked"},
		"mainnet":                  {[]string{"X-Network", "mainnet"}, "403 network_locked"},
		"mainnet with another key": {[]string{"X-Api-Key", "sk_one", "X-Network", "mainnet"}, "401 apikey.network_mismatch"},
		"no network":               {[]string{"X-Network", "moon"}, "400 network.invalid"},
		"two networks":             {[]string{"X-Network", "testnet", "X-Network", "testnet"}, "400 network.invalid"},
	} {
		a := c.ask(0, http.MethodGet, "/x", "", append(tc.header, headerSignature, header)...)
		status, code, _ := strings.Cut(tc.want, " ")
		if fmt.Sprint(a.status) != status || !strings.Contains(a.body, `"code":"`+code+`"`) || strings.Contains(a.body, "sk_") {
			t.Errorf("%s: %d %s, want %s", name, a.status, a.body, tc.want)
		}
		if challenge := a.header.Get("WWW-Authenticate"); (a.status == http.StatusUnauthorized) != strings.HasPrefix(challenge, "Bearer ") {
			t.Errorf("%s: %d with WWW-Authenticate %q", name, a.status, challenge)
		}
	}
	c.saw(0, 0)
	if a := c.ask(0, http.MethodGet, "/x", "", "X-Network", "testnet", headerSignature, header); a.status != http.StatusOK || a.header.Get("X-Network") != "testnet" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
}

// Each key has its own limit, over all instances and whoever pays; guesses at keys are few.
func TestConsumerZones(t *testing.T) {
	keys := newRoll()
	c := newCluster(t, 2, Settings{}, nil, func(g *Config) {
		g.Consumers, g.ConsumersOnly = keys, true
		g.Zones = []Zone{
			{By: ByKey, Name: "z", Requests: 3, Window: time.Hour},
			{By: ByPayer, Name: "z", Requests: 1, Window: time.Hour},
			{By: ByRefused, Name: "z", Requests: 2, Window: time.Hour},
		}
	})
	if a := c.ask(0, http.MethodGet, "/x", ""); a.status != http.StatusUnauthorized || !strings.Contains(a.body, CodeAPIKeyMissing) {
		t.Errorf("without a key: %d %s", a.status, a.body)
	}
	offer := c.ask(0, http.MethodGet, "/x", "", "X-Api-Key", "sk_one")
	var paid string
	for i := range 2 {
		paid = c.signOffer(offer, 1, "", nil)
		a := c.ask(i, http.MethodGet, "/x", "", "X-Api-Key", "sk_one", headerSignature, paid)
		if a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("RateLimit"), fmt.Sprintf(`"key";r=%d;t=`, 1-i)) {
			t.Errorf("payment %d: %d %v %s", i, a.status, a.header, a.body)
		}
	}
	header := c.signOffer(offer, 1, "", nil)
	limitedBy(t, "one too many", c.ask(0, http.MethodGet, "/x", "", "X-Api-Key", "sk_one", headerSignature, header), ByKey, 3)
	limitedBy(t, "an offer", c.ask(0, http.MethodGet, "/x", "", "X-Api-Key", "sk_one"), ByKey, 3)
	if a := c.ask(0, http.MethodGet, "/x", "", "X-Api-Key", "sk_one", headerSignature, paid); a.header.Get(headerPaymentID) == "" || a.header.Get("RateLimit") != "" {
		t.Errorf("who has paid is not told what became of it: %d %v %s", a.status, a.header, a.body)
	}
	if a := c.ask(0, http.MethodGet, "/x", "", "X-Api-Key", "sk_two", headerSignature, header); a.status != http.StatusOK {
		t.Errorf("another key: %d %s", a.status, a.body)
	}
	c.saw(3, 3*cent)
	for range 2 {
		if a := c.ask(0, http.MethodGet, "/x", "", "X-Api-Key", "sk_nobody"); a.status != http.StatusUnauthorized {
			t.Errorf("a guess: %d %s", a.status, a.body)
		}
	}
	looks := keys.looks.Load()
	for _, key := range []string{"sk_nobody", "sk_two"} {
		limitedBy(t, "guesses", c.ask(0, http.MethodGet, "/x", "", "X-Api-Key", key), ByRefused, 2)
	}
	if keys.looks.Load() != looks {
		t.Error("a key was looked at all the same")
	}
}
