package paywall

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// skewed is a ledger as an instance sees it that mistakes its clock.
type skewed struct {
	ledger.Store
	by      time.Duration
	updates atomic.Int64
}

func (s *skewed) Now() time.Time { return s.Store.Now().Add(s.by) }

func (s *skewed) Update(ctx context.Context, id string, version uint64, changes ...ledger.Change) (ledger.Payment, error) {
	s.updates.Add(1)
	return s.Store.Update(ctx, id, version, changes...)
}

// An instance whose clock is wrong by more than a hold lasts does no harm, and does not ask the ledger again and again for what
// it takes to be free: a copy of a request that is under way on another instance waits.
func TestSkewedClocks(t *testing.T) {
	for name, by := range map[string]time.Duration{"ahead": time.Minute, "behind": -time.Minute} {
		t.Run(name, func(t *testing.T) {
			var wrong *skewed
			c := newCluster(t, 2, Settings{SettleTimeout: 20 * time.Second, ReconcileEvery: time.Hour}, func(i int, s ledger.Store) ledger.Store {
				if i == 0 {
					return s
				}
				wrong = &skewed{Store: s, by: by}
				return wrong
			})
			called, release := make(chan struct{}), make(chan struct{})
			c.serve = func(http.ResponseWriter, *http.Request) {
				close(called)
				<-release
			}
			header := c.sign(0, 1, "")
			first := make(chan reply, 1)
			go func() { first <- c.ask(0, http.MethodPost, "/x", "", headerSignature, header) }()
			<-called
			before := wrong.updates.Load()
			time.AfterFunc(time.Second, func() { close(release) })
			copied := c.ask(1, http.MethodPost, "/x", "", headerSignature, header)
			if a := <-first; a.status != http.StatusOK {
				t.Errorf("the first: %d %s", a.status, a.body)
			}
			if copied.status == http.StatusOK {
				t.Errorf("its copy: %d %s", copied.status, copied.body)
			}
			if n := wrong.updates.Load() - before; n > 20 {
				t.Errorf("the ledger was asked %d times within a second", n)
			}
			c.saw(1, cent)
		})
	}
}
