package apikey_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/apikey"
)

// Several instances that write down at the same time lose nothing of each other.
func TestUsageOfManyInstances(t *testing.T) {
	const instances, calls = 4, 25
	d := newDesk()
	k, _ := d.create(t, apikey.Request{})
	var wg sync.WaitGroup
	for range instances {
		wg.Go(func() {
			var u apikey.Usage
			for i := range calls {
				u.Count(&k, i%5 == 0, d.store.Now())
				for { // who is slower than others ten times keeps what it has for the next time
					if err := u.Flush(t.Context(), d.store); err == nil {
						break
					} else if !errors.Is(err, ledger.ErrConflict) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	use, err := new(apikey.Usage).Used(t.Context(), d.store, k.Mode, k.ID, 1)
	if err != nil || len(use) != 1 || use[0].Calls != instances*calls || use[0].Errors != instances*calls/5 {
		t.Errorf("%+v, %v", use, err)
	}
}

// What can't be written down is kept, and seen by who asks here.
func TestUsageIsKept(t *testing.T) {
	d, away := newDesk(), newDesk()
	k, _ := d.create(t, apikey.Request{})
	if err := away.store.Close(); err != nil {
		t.Fatal(err)
	}
	var u apikey.Usage
	u.Count(&k, false, d.store.Now())
	if err := u.Flush(t.Context(), away.store); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("to a ledger that is closed: %v", err)
	}
	u.Count(&k, true, d.store.Now())
	for _, want := range []int64{2, 2} {
		use, err := u.Used(t.Context(), d.store, "", "", 7)
		if err != nil || use[6].Calls != want || use[6].Errors != 1 || use[6].Day.Hour() != 0 || use[6].Day.Location() != time.UTC {
			t.Errorf("%+v, %v", use, err)
		}
		if err := u.Flush(t.Context(), d.store); err != nil {
			t.Error(err)
		}
	}
}
