package crash

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// issuer is the seller's endpoint for the credentials of a plan: one for each key, as it should be, and a count of what it was asked.
type issuer struct {
	*httptest.Server
	mu     sync.Mutex
	asked  int
	keys   map[string]string
	bodies map[string]string
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{keys: map[string]string{}, bodies: map[string]string{}}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		_ = json.NewDecoder(r.Body).Decode(&body)
		key := r.Header.Get("Idempotency-Key")
		i.mu.Lock()
		defer i.mu.Unlock()
		i.asked++
		if i.keys[key] == "" {
			i.keys[key] = fmt.Sprintf("credential-%d", len(i.keys)+1)
		}
		if text := fmt.Sprint(body); i.bodies[key] != "" && i.bodies[key] != text {
			t.Errorf("asked another time: %s\nbefore: %s", text, i.bodies[key])
		} else {
			i.bodies[key] = text
		}
		_, _ = fmt.Fprintf(w, `{"token":%q}`, i.keys[key])
	}))
	t.Cleanup(i.Close)
	return i
}

const issuerSite = `
	x402 $0.01 {
		plan day $0.10 {
			ttl 24h
			issuer %s {
				timeout 1s
			}
		}
	}
	x402_service
	reverse_proxy {upstream}
`

// Wherever the process is killed between the payment and the credential, its payer gets one credential for one payment, and the same whenever it
// asks; the issuer is asked for nothing else, and once the credential is kept it is not asked at all.
func TestKilledWhileIssuing(t *testing.T) {
	for step, most := range map[string]int{"claimed": 1, "settled": 1, "issued": 2, "kept": 1, "delivered": 1} {
		for name, as := range map[string]struct {
			method string
			anew   bool
		}{
			"GET": {http.MethodGet, false}, "POST": {http.MethodPost, false}, "signs anew": {http.MethodPost, true},
		} {
			t.Run(step+"/"+name, func(t *testing.T) {
				t.Parallel()
				killWhileIssuing(t, step, as.method, as.anew, most)
			})
		}
	}
}

func killWhileIssuing(t *testing.T, step, method string, anew bool, most int) {
	i := newIssuer(t)
	s := newScene(t, newChain(t), method, "/thing")
	o := rig.Options{Site: fmt.Sprintf(issuerSite, i.URL), App: "settle_timeout 20s\n hold_ttl 2s\n min_age 60s\n interval 200ms"}
	s.dies(o, step, 1)

	alive := s.start(o, "")
	come := func(s *scene) rig.Answer {
		if anew {
			return s.send(s.buyer.Sign(s.offer, 1))
		}
		return s.send(s.header)
	}
	first, second := s.insist(come), s.insist(come)
	credential := first.Header.Get("X-Access-Token")
	if first.Status != http.StatusOK || credential == "" || second.Header.Get("X-Access-Token") != credential {
		t.Errorf("%d %q, then %d %q: %s", first.Status, credential, second.Status, second.Header.Get("X-Access-Token"), first.Body)
	}
	if a := s.buyer.Get(s.url, "Authorization", "Bearer "+credential); a.Status != http.StatusOK {
		t.Errorf("the credential opens nothing: %d", a.Status)
	}
	s.settle()
	alive.Kill()

	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.keys) != 1 || i.asked > most {
		t.Errorf("the issuer was asked %d times, for %d payments", i.asked, len(i.keys))
	}
	s.oneDelivered()
}

// oneDelivered checks that one plan was paid for, and delivered.
func (s *scene) oneDelivered() {
	t := s.t
	store, err := sqlite.Open(t.Context(), filepath.Join(s.dir, "ledger.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	list, err := store.List(t.Context(), ledger.Query{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	delivered := 0
	for _, p := range list {
		switch p.State() {
		case ledger.StateDelivered:
			delivered++
		case ledger.StateVoid:
		default:
			t.Errorf("payment %s is %s", p.ID, p.State())
		}
	}
	earned, err := s.chain.TokenBalance(t.Context(), rig.PayTo)
	if err != nil || delivered != 1 || earned.Uint64() != 10*cent {
		t.Errorf("%d delivered, %v earned, %v", delivered, earned, err)
	}
}
