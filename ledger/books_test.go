package ledger_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/storetest"
	"github.com/caddy-x402/caddy-x402/x402"
)

// clock is moved by the test.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time           { return c.now }
func (c *clock) after(d time.Duration)    { c.now = c.now.Add(d) }
func account(n uint64) (a common.Address) { binary.BigEndian.PutUint64(a[12:], n); return a }
func hash(n uint64) (h common.Hash)       { binary.BigEndian.PutUint64(h[24:], n); return h }

// offer is the n-th payment, to be claimed. Its id is not in the order of n.
func offer(n uint64) ledger.Payment {
	payer := account(n % 7)
	return ledger.Payment{
		ID:              fmt.Sprintf("pay_%s%026d", ledger.Shard(payer), n*7919%1_000_003),
		AuthorizationID: x402.AuthorizationID{ChainID: 8453, Asset: account(99), Payer: payer, Nonce: hash(n)},
		PayTo:           account(98), Amount: *uint256.NewInt(n), ValidBefore: 1_900_000_000, HeaderHash: hash(n << 32),
		Binding: ledger.Binding{Route: "r", Method: "GET", Host: "h", URI: "/<u>&\"\u2028"}, Flow: ledger.FlowUpfront,
	}
}

// transaction is the n-th, whatever it carries.
func transaction(wallet, nonce, n uint64, payments ...string) ledger.Transaction {
	raw := binary.BigEndian.AppendUint64([]byte{2}, n)
	return ledger.Transaction{ChainID: 8453, Wallet: account(wallet), Nonce: nonce, Hash: crypto.Keccak256Hash(raw), Raw: raw, Payments: payments}
}

// fill puts payments from first on into a store, in various states, and anchors some of them, and the rest not.
func fill(t *testing.T, s ledger.Store, c *clock, first, n uint64) {
	t.Helper()
	ctx := t.Context()
	random := rand.New(rand.NewPCG(first, n))
	for i := first; i < first+n; i++ {
		p, err := s.Claim(ctx, offer(i), ledger.Change{Actor: "request", Hold: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			nonce, _, err := s.Nonce(ctx, 8453, account(50))
			if err != nil {
				t.Fatal(err)
			}
			tx := transaction(50, nonce, 1<<40+i, p.ID)
			if err := s.Record(ctx, tx, "request"); err != nil {
				t.Fatal(err)
			}
			p.Version++
			changes := []ledger.Change{
				{Event: ledger.EventSettle, Actor: "request", Transaction: tx.Hash, Block: i},
				{Event: ledger.EventDeliver, Actor: "request", Fence: 1, Hold: time.Minute},
				{Event: ledger.EventDelivered, Actor: "request", Fence: 1},
				{Event: ledger.EventFinal, Transaction: tx.Hash, Block: i},
			}
			if _, err = s.Update(ctx, p.ID, p.Version, changes[:1+random.IntN(4)]...); err != nil {
				t.Fatal(err)
			}
		}
		if i%3 == 0 {
			c.after(time.Duration(random.IntN(20)) * time.Second)
		}
		if i%10 == 9 {
			anchor(t, s, c)
		}
	}
}

func anchor(t *testing.T, s ledger.Store, c *clock) ledger.Anchor {
	t.Helper()
	c.after(2 * ledger.AnchorLag)
	a, err := ledger.NextAnchor(t.Context(), s, s.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// memory is a store with n payments.
func memory(t *testing.T, n uint64) (*storetest.Memory, *clock) {
	t.Helper()
	c := &clock{start}
	m := storetest.NewMemory(c.Now, false)
	fill(t, m, c, 1, n)
	return m, c
}

// snapshot is what a store shows of itself. It can be tampered with, which no store would let happen.
type snapshot struct {
	ledger.Books
	records []ledger.Record
	entries []ledger.Entry
	anchors []ledger.Anchor
}

func newSnapshot(t *testing.T, b ledger.Books) *snapshot {
	t.Helper()
	s := &snapshot{}
	var err error
	if s.records, err = b.Records(t.Context(), "", 1<<20); err != nil {
		t.Fatal(err)
	}
	if s.entries, err = b.Entries(t.Context(), ledger.Mark{}, start.Add(100*365*24*time.Hour), 1<<20); err != nil {
		t.Fatal(err)
	}
	if s.anchors, err = b.Anchors(t.Context(), 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	return s
}

// clone shares no slice with s.
func (s *snapshot) clone() *snapshot {
	c := &snapshot{entries: slices.Clone(s.entries), anchors: slices.Clone(s.anchors), records: slices.Clone(s.records)}
	for i := range c.records {
		c.records[i].Trail = slices.Clone(c.records[i].Trail)
	}
	return c
}

func page[T any](from []T, skip func(T) bool, limit int) []T {
	i := slices.IndexFunc(from, func(x T) bool { return !skip(x) })
	if i < 0 {
		return nil
	}
	return from[i:min(len(from), i+limit)]
}

func (s *snapshot) Records(_ context.Context, after string, limit int) ([]ledger.Record, error) {
	return page(s.records, func(r ledger.Record) bool { return r.Payment.ID <= after }, limit), nil
}

func (s *snapshot) Anchors(_ context.Context, after uint64, limit int) ([]ledger.Anchor, error) {
	return page(s.anchors, func(a ledger.Anchor) bool { return a.Sequence <= after }, limit), nil
}

func (s *snapshot) Entries(_ context.Context, after ledger.Mark, until time.Time, limit int) ([]ledger.Entry, error) {
	i := 0
	if after != (ledger.Mark{}) {
		// Behind the entry of the mark, wherever a forger has put it.
		if i = slices.IndexFunc(s.entries, func(e ledger.Entry) bool { return e.Mark() == after }) + 1; i == 0 {
			i = len(s.entries) - len(page(s.entries, func(e ledger.Entry) bool { return !e.At.After(after.At) }, len(s.entries)))
		}
	}
	var got []ledger.Entry
	for ; i < len(s.entries) && len(got) < limit; i++ {
		if !s.entries[i].At.After(until) {
			got = append(got, s.entries[i])
		}
	}
	return got, nil
}

// each gives the places of the entries of a payment among all.
func (s *snapshot) each(id string, f func(e *ledger.Entry)) {
	for i := range s.entries {
		if s.entries[i].Payment == id {
			f(&s.entries[i])
		}
	}
}

// forget removes a payment's entries from the list by time.
func (s *snapshot) forget(id string) {
	s.entries = slices.DeleteFunc(s.entries, func(e ledger.Entry) bool { return e.Payment == id })
}

// kinds lists what was found, once each.
func kinds(r ledger.Report) string {
	var got []string
	for _, p := range r.Problems {
		got = append(got, string(p.Kind))
	}
	slices.Sort(got)
	return strings.Join(slices.Compact(got), " ")
}
