//go:build interop

package dashboard

import (
	"cmp"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/test/interop/bed"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// order is what the browser is to do.
type order struct {
	URL     string   `json:"url"`
	Key     string   `json:"key"`
	Reader  string   `json:"reader"` // a key that may only look
	Buy     string   `json:"buy"`    // what makes a payment
	Browser string   `json:"browser"`
	Shots   string   `json:"shots"`
	Scenes  []string `json:"scenes"`
}

// report is what it saw.
type report struct {
	Wrong []string `json:"wrong"`
	Seen  struct {
		Earned  string   `json:"earned"`
		Needs   []string `json:"needs"`
		States  string   `json:"states"`
		Live    string   `json:"live"`
		Retried bool     `json:"retried"`
		Minor   []string `json:"minor"`
	} `json:"seen"`
}

// browser finds Chromium. A test that did not run has shown nothing, so it must be there.
func browser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path
		}
	}
	t.Fatal("Chromium is missing: apt install chromium, or name one by CHROMIUM")
	return ""
}

// keys makes keys where the shop's ledger is: one for everything, and one that may only look.
func keys(t *testing.T, r *rig.Rig) (all, reader string) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(r.Dir, "ledger.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	return newKey(t, store, "me", apikey.Scopes()...), newKey(t, store, "accountant", apikey.PaymentsRead)
}

// The dashboard, looked at from the first key to a failed refund, in all its states, by eyes, keyboard and axe.
func TestDashboard(t *testing.T) {
	bed.Install(t, ".")
	r := rig.New(t, rig.Options{
		Site: `
	x402 $0.01
	x402_service
	x402_management {
		path /ops
		key_max_age 90d
	}
	reverse_proxy {upstream}
	`,
		Upstream: func(w http.ResponseWriter, q *http.Request) {
			if strings.HasPrefix(q.URL.Path, "/broken") {
				w.WriteHeader(http.StatusInternalServerError)
			}
			_, _ = io.WriteString(w, "sunny")
		},
	})
	buy := func(payer int, path string, want int) {
		if a, _ := rig.NewBuyer(t, payer).Buy(r.URL(path)); a.Status != want {
			t.Errorf("%s: %d %v", path, a.Status, a.Err)
		}
	}
	shop := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { buy(1, "/live", http.StatusOK) }))
	defer shop.Close()
	o := order{
		URL: r.URL("/ops/dashboard"), Buy: shop.URL, Browser: browser(t), Shots: cmp.Or(os.Getenv("DASHBOARD_SHOTS"), t.TempDir()),
	}
	o.Key, o.Reader = keys(t, r)
	see(t, o, "signIn", "empty", "days") // a few at a time: each run has its time, on a busy machine, too
	see(t, o, "madeUp")
	see(t, o, "long", "late", "parting")

	buy(1, "/weather", http.StatusOK)
	buy(2, "/weather?<img/src=x/onerror=alert(1)>\u202egnp.exe", http.StatusOK)
	buy(2, "/broken", http.StatusInternalServerError)
	failRefund(t, r)
	saw := see(t, o, "sold", "keyboard", "live", "act", "failing")
	if saw.Seen.Earned != "$0.02" || len(saw.Seen.Needs) == 0 || !strings.Contains(saw.Seen.Needs[0], "refund has failed") ||
		!strings.Contains(saw.Seen.Live, "/live") || !saw.Seen.Retried {
		t.Errorf("it saw %+v", saw.Seen)
	}
	t.Logf("lesser findings: %q", saw.Seen.Minor)
}

func see(t *testing.T, o order, scenes ...string) (saw report) {
	t.Helper()
	o.Scenes = scenes
	bed.Run(t, ".", "look.mjs", o, &saw)
	for _, w := range saw.Wrong {
		t.Error(w)
	}
	return saw
}

// failRefund waits until a payment is to go back, and writes down that this has failed.
func failRefund(t *testing.T, r *rig.Rig) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(r.Dir, "ledger.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		list, err := store.List(t.Context(), ledger.Query{State: ledger.StateRefundPending, Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 1 {
			if _, err := store.Update(t.Context(), list[0].ID, list[0].Version, ledger.Change{Event: ledger.EventRefundFailed, Actor: "a test", Reason: "over_limit"}); err == nil {
				return
			}
		}
	}
	t.Fatal("nothing is to go back within a minute")
}
