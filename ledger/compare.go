package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// How Copy makes sure that both stores hold the same, and that it is a whole ledger.

// sameAnchors begins the verification: with the anchors, which must be the same in both.
func (c *copier) sameAnchors(ctx context.Context) error {
	c.report.Anchors = 0
	after := uint64(0)
	for {
		page, err := c.from.Anchors(ctx, after, anchorsPage)
		if err != nil {
			return fmt.Errorf("reading anchors: %w", err)
		}
		copied, err := c.to.Anchors(ctx, after, anchorsPage)
		if err != nil {
			return fmt.Errorf("reading anchors: %w", err)
		}
		if !slices.EqualFunc(page, copied, func(a, b Anchor) bool { return a.Hash == b.Hash && a.digest() == b.digest() }) {
			return c.differs("the anchors after %d differ", after)
		}
		for i := range copied {
			c.v.anchor(&copied[i])
		}
		c.report.Anchors += int64(len(page))
		if len(page) < anchorsPage {
			return nil
		}
		after = page[len(page)-1].Sequence
	}
}

// compare reads every payment in both. One that is missing was lost when a copy was interrupted, and is sent again.
func (c *copier) compare(ctx context.Context) error {
	c.report.Payments = 0
	for after := ""; ; {
		page, err := c.from.Records(ctx, after, c.o.PageSize)
		if err != nil {
			return fmt.Errorf("reading payments: %w", err)
		}
		copied, err := c.to.Records(ctx, after, c.o.PageSize)
		if err != nil {
			return fmt.Errorf("reading back payments: %w", err)
		}
		whole := len(page) == c.o.PageSize
		if whole {
			after = page[len(page)-1].Payment.ID
			copied = slices.DeleteFunc(copied, func(r Record) bool { return r.Payment.ID > after })
		}
		if err := c.comparePage(ctx, page, copied); err != nil {
			return err
		}
		c.report.Payments += int64(len(page))
		c.progress(CopyCompare, c.report.Payments, c.total)
		if !whole {
			return nil
		}
	}
}

func (c *copier) comparePage(ctx context.Context, page, copied []Record) error {
	at := make(map[string]*Record, len(copied))
	for i := range copied {
		at[copied[i].Payment.ID] = &copied[i]
	}
	for i := range page {
		r := &page[i]
		id := r.Payment.ID
		switch got, ok := at[id]; {
		case ok && !same(r, got):
			return c.differs("payment %s changed", id)
		case !ok && c.complete:
			return c.differs("payment %s is not in the destination", id)
		case !ok:
			if err := c.send(ctx, Part{Records: []Record{*r}}, "payment "+id); err != nil {
				return err
			}
			c.report.Copied++
		}
		delete(at, id)
		c.v.record(&r.Payment, r.Trail)
		c.v.transactions(r)
		for j := range r.Trail {
			if m := r.Trail[j].Mark(); m.after(c.newest) {
				c.newest = m
			}
		}
	}
	for id := range at {
		return c.differs("the destination has the payment %s, which the source has not", id)
	}
	return nil
}

// same compares two records in all their parts.
func same(a, b *Record) bool {
	return a.Payment.utc() == b.Payment.utc() &&
		slices.EqualFunc(a.Trail, b.Trail, func(x, y Entry) bool { return x.utc() == y.utc() }) &&
		slices.EqualFunc(a.Transactions, b.Transactions, sameTransaction)
}

func sameTransaction(a, b Transaction) bool {
	return a.ChainID == b.ChainID && a.Wallet == b.Wallet && a.Nonce == b.Nonce && a.Hash == b.Hash &&
		bytes.Equal(a.Raw, b.Raw) && slices.Equal(a.Payments, b.Payments) && a.CreatedAt.Equal(b.CreatedAt)
}

func sameWallet(a, b Wallet) bool {
	return a.ChainID == b.ChainID && a.Address == b.Address && a.NextNonce == b.NextNonce &&
		slices.EqualFunc(a.Freed, b.Freed, sameTransaction)
}

// utc is the entry with its times in one form, so that two of them can be compared by ==.
func (e *Entry) utc() Entry {
	f := *e
	for _, t := range []*time.Time{&f.At, &f.Hold.Until, &f.PlanUntil} {
		*t = t.UTC()
	}
	return f
}

// verify reads the entries of the destination in the order of their time, as the anchors fixed them.
func (c *copier) verify(ctx context.Context) error {
	done, total := int64(0), c.v.report.Entries-c.v.report.Unanchored
	err := eachEntry(ctx, c.to, Mark{}, c.v.until(), func(e *Entry) error {
		c.v.entry(e)
		if done++; done%entriesPage == 0 {
			c.progress(CopyVerify, done, total)
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.report.Audit = c.v.finish()
	c.progress(CopyVerify, done, total)
	if n := c.report.Audit.Found; n > 0 {
		return fmt.Errorf("%w: %d problems, the first: %s", ErrAudit, n, c.report.Audit.Problems[0].Message)
	}
	return nil
}

func (c *copier) sameWallets(ctx context.Context) error {
	from, err := c.from.Wallets(ctx)
	if err != nil {
		return fmt.Errorf("reading wallets: %w", err)
	}
	to, err := c.to.Wallets(ctx)
	if err != nil {
		return fmt.Errorf("reading back wallets: %w", err)
	}
	c.report.Wallets = len(from)
	if !slices.EqualFunc(from, to, sameWallet) {
		return c.differs("the wallets differ")
	}
	return nil
}

// unchanged looks for what was written to the source since it was read.
func (c *copier) unchanged(ctx context.Context) error {
	from, err := c.from.Counts(ctx)
	if err != nil {
		return fmt.Errorf("counting: %w", err)
	}
	to, err := c.to.Counts(ctx)
	if err != nil {
		return fmt.Errorf("counting what was copied: %w", err)
	}
	if !maps.Equal(from, to) {
		return c.differs("the source has %v, the destination %v", from, to)
	}
	if err := c.sameWallets(ctx); err != nil {
		return err
	}
	later, err := c.from.Entries(ctx, c.newest, forever, 1)
	if err != nil {
		return fmt.Errorf("reading audit entries: %w", err)
	}
	if len(later) > 0 {
		return c.differs("payment %s changed", later[0].Payment)
	}
	return c.sameExpiring(ctx)
}

// kept is what is compared of a reservation, a revocation, an allowance or an object.
type kept struct {
	sum     [sha256.Size]byte
	expires time.Time
}

func reservationsOf(ctx context.Context, b Books) (map[common.Hash]kept, error) {
	all := map[common.Hash]kept{}
	err := b.EachReservation(ctx, func(r Reservation) error {
		r.CreatedAt, r.ExpiresAt = r.CreatedAt.UTC(), r.ExpiresAt.UTC()
		line, err := json.Marshal(r)
		all[r.Key] = kept{sha256.Sum256(line), r.ExpiresAt}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading reservations: %w", err)
	}
	return all, nil
}

func revocationsOf(ctx context.Context, b Books) (map[common.Hash]kept, error) {
	all := map[common.Hash]kept{}
	for after := uint64(0); ; {
		page, err := b.Revoked(ctx, after, anchorsPage)
		if err != nil {
			return nil, fmt.Errorf("reading revocations: %w", err)
		}
		for i := range page {
			r := &page[i]
			after = r.Number
			line, err := json.Marshal([]any{r.ID, r.Until.UTC()}) // their numbers are each store's own
			if err != nil {
				return nil, fmt.Errorf("reading revocations: %w", err)
			}
			all[sha256.Sum256([]byte(r.ID))] = kept{sha256.Sum256(line), r.Until}
		}
		if len(page) < anchorsPage {
			return all, nil
		}
	}
}

func allowancesOf(ctx context.Context, b Books) (map[common.Hash]kept, error) {
	all := map[common.Hash]kept{}
	err := b.EachAllowance(ctx, func(a Allowance) error {
		a.CreatedAt, a.ExpiresAt = a.CreatedAt.UTC(), a.ExpiresAt.UTC()
		line, err := json.Marshal(a)
		all[a.Key] = kept{sha256.Sum256(line), a.ExpiresAt}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading allowances: %w", err)
	}
	return all, nil
}

// sameExpiring compares what has a key and an end, and does not end meanwhile. A token that was taken back, for one, must not open
// anything again.
func (c *copier) sameExpiring(ctx context.Context) error {
	for _, list := range []struct {
		what string
		of   func(context.Context, Books) (map[common.Hash]kept, error)
	}{
		{"reservation", reservationsOf}, {"revocation", revocationsOf}, {"allowance", allowancesOf}, {"object", objectsOf},
	} {
		if err := c.sameKept(ctx, list.what, list.of); err != nil {
			return err
		}
	}
	return nil
}

func objectsOf(ctx context.Context, b Books) (map[common.Hash]kept, error) {
	all := map[common.Hash]kept{}
	err := b.EachObject(ctx, func(o Object) error {
		o.Due, o.Expires = o.Due.UTC(), o.Expires.UTC()
		line, err := json.Marshal(o)
		k := kept{sha256.Sum256(line), o.Expires}
		if o.Expires.IsZero() {
			k.expires = forever
		}
		all[sha256.Sum256([]byte(o.Kind+" "+o.ID))] = k
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading objects: %w", err)
	}
	return all, nil
}

func (c *copier) sameKept(ctx context.Context, what string, of func(context.Context, Books) (map[common.Hash]kept, error)) error {
	from, err := of(ctx, c.from)
	if err != nil {
		return err
	}
	to, err := of(ctx, c.to)
	if err != nil {
		return err
	}
	soon := time.Now()
	for i, b := range []Books{c.from, c.to} {
		if clock, ok := b.(interface{ Now() time.Time }); ok && (i == 0 || clock.Now().After(soon)) {
			soon = clock.Now()
		}
	}
	soon = soon.Add(time.Minute)
	for key, r := range from {
		if got, ok := to[key]; ok && got.sum != r.sum || !ok && r.expires.After(soon) {
			return c.differs("the %s %s changed", what, key)
		}
	}
	for key, r := range to {
		if _, ok := from[key]; !ok && r.expires.After(soon) {
			return c.differs("the destination has the %s %s, which the source has not", what, key)
		}
	}
	return nil
}

// forever is after all entries.
var forever = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
