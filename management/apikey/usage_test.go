package apikey_test

import (
	"context"
	"errors"
	"strings"
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

// unlisted is a store in which nobody may look through all objects.
type unlisted struct{ apikey.Store }

var errListed = errors.New("all objects are looked through")

func (unlisted) Objects(context.Context, string, string, string, int) ([]ledger.Object, error) {
	return nil, errListed
}

// What one key was used is found without a look at the others, of which there may be very many; a key of another mode is not told of.
func TestUsageOfOneKey(t *testing.T) {
	d := newDesk()
	k, _ := d.create(t, apikey.Request{})
	other, _ := d.create(t, apikey.Request{})
	var u apikey.Usage
	for range 3 {
		u.Count(&k, false, d.store.Now())
		u.Count(&other, true, d.store.Now())
		if err := u.Flush(t.Context(), d.store); err != nil {
			t.Fatal(err)
		}
		d.pass(24 * time.Hour)
	}
	store := unlisted{d.store}
	for _, tc := range []struct {
		mode  apikey.Mode
		key   string
		calls int64
	}{{apikey.Test, k.ID, 3}, {"", k.ID, 3}, {apikey.Live, k.ID, 0}, {apikey.Test, "ak nobody", 0}, {apikey.Test, strings.Repeat("a", 128), 0}} {
		use, err := u.Used(t.Context(), store, tc.mode, tc.key, 4)
		if err != nil || len(use) != 4 || use[0].Calls+use[1].Calls+use[2].Calls+use[3].Calls != tc.calls || use[0].Errors != 0 {
			t.Errorf("%s, %s: %+v, %v", tc.mode, tc.key, use, err)
		}
	}
	if _, err := u.Used(t.Context(), store, apikey.Test, "", 4); !errors.Is(err, errListed) {
		t.Errorf("all keys: %v", err)
	}
}
