package ledger_test

import (
	"errors"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
)

// What is younger than a minute is not anchored yet: it may not all have come in.
func TestNextAnchorLags(t *testing.T) {
	c := &clock{start}
	m := storetest.NewMemory(c.Now, false)
	claim := func(n uint64) {
		t.Helper()
		if _, err := m.Claim(t.Context(), offer(n), ledger.Change{}); err != nil {
			t.Fatal(err)
		}
	}
	claim(1)
	c.after(time.Minute - time.Microsecond)
	claim(2)
	if a, err := ledger.NextAnchor(t.Context(), m, c.now); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("%+v, %v; want ErrNotFound", a, err)
	}
	c.after(time.Microsecond)
	a, err := ledger.NextAnchor(t.Context(), m, c.now)
	if err != nil || a.Count != 1 || !a.Until.Equal(start) {
		t.Errorf("%+v, %v; want one entry until %v", a, err, start)
	}
}

// An anchor follows the last one only if it is whole, numbered and chained after it, and later.
func TestAnchorFollows(t *testing.T) {
	m, _ := memory(t, 30)
	s := newSnapshot(t, m)
	first, second := s.anchors[0], s.anchors[1]
	if !first.Follows(nil) || !second.Follows(&first) {
		t.Fatal("a chain is refused")
	}
	for name, change := range map[string]func(a *ledger.Anchor){
		"number":         func(a *ledger.Anchor) { a.Sequence++ },
		"previous":       func(a *ledger.Anchor) { a.Previous = common.Hash{} },
		"the same time":  func(a *ledger.Anchor) { a.Until = first.Until },
		"an early time":  func(a *ledger.Anchor) { a.Until = first.Until.Add(-time.Hour) },
		"another's hash": func(a *ledger.Anchor) { *a = first },
	} {
		a := second
		change(&a)
		if name != "another's hash" {
			reanchor(&a)
		}
		if a.Follows(&first) {
			t.Errorf("%s: %+v follows", name, a)
		}
	}
	changed := second
	if changed.Count++; changed.Follows(&first) {
		t.Error("an anchor follows whose hash is not its own")
	}
	if second.Follows(nil) {
		t.Error("the second follows nothing")
	}
}
