package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// CopyOptions are settings of Copy. The zero value is good.
type CopyOptions struct {
	// PageSize is how many payments are read and written at once; zero means 500.
	PageSize int
	// KeptSince is VerifyOptions.KeptSince, of a source that forgets.
	KeptSince time.Time
	// Progress, where it is set, is told how far it is after each page.
	Progress func(CopyProgress)
}

// CopyStep is what Copy is doing.
type CopyStep string

// The steps of Copy, in their order.
const (
	CopyPayments     CopyStep = "payments"
	CopyWallets      CopyStep = "wallets"
	CopyReservations CopyStep = "reservations"
	CopyRevocations  CopyStep = "revocations"
	CopyAllowances   CopyStep = "allowances"
	CopyObjects      CopyStep = "objects"
	CopyAnchors      CopyStep = "anchors"
	CopyCompare      CopyStep = "compare" // every payment is read back and compared
	CopyVerify       CopyStep = "verify"  // the entries against the anchors
)

// CopyProgress is how far Copy is.
type CopyProgress struct {
	Step CopyStep
	// Done and Total count payments, and in CopyVerify audit entries, whose Total is known; zero Total: not known.
	Done, Total int64
}

// CopyReport is what Copy did.
type CopyReport struct {
	// Payments is how many the destination has now, Copied how many of them this call wrote.
	Payments     int64 `json:"payments"`
	Copied       int64 `json:"copied"`
	Wallets      int   `json:"wallets"`
	Reservations int64 `json:"reservations"`
	Revocations  int64 `json:"revocations"`
	Allowances   int64 `json:"allowances"`
	Objects      int64 `json:"objects"`
	Anchors      int64 `json:"anchors"`
	// Audit is the verification of the destination.
	Audit Report `json:"audit"`
}

// objectsPage is how many objects a part has at most: each may have a long body.
const objectsPage = 32

// Copy moves a ledger into an empty store, or goes on with a copy that was interrupted, wherever that was. Nobody may
// write to either store meanwhile. When everything was read back and found equal, and the audit trails and anchors hold,
// the destination is completed: until then nothing else can be written to it. A copy that was completed already is compared
// again, and is a success if it is equal. Errors: ErrExists if the destination is in use, ErrConflict if the source changed
// meanwhile (or the destination is a copy of something else), ErrAudit if what was copied does not verify.
func Copy(ctx context.Context, from, to Books, o CopyOptions) (CopyReport, error) {
	if o.PageSize <= 0 {
		o.PageSize = recordsPage
	}
	c := &copier{from: from, to: to, o: o, v: newVerification(VerifyOptions{KeptSince: o.KeptSince})}
	if err := c.run(ctx); err != nil {
		return c.report, fmt.Errorf("copying the ledger: %w", err)
	}
	return c.report, nil
}

// copier is one run of Copy.
type copier struct {
	from, to Books
	o        CopyOptions
	report   CopyReport
	v        *verification
	total    int64
	// complete: the destination is no copy that was begun, so it must be one that was completed.
	complete bool
	newest   Mark // of all entries
}

func (c *copier) run(ctx context.Context) error {
	counts, err := c.from.Counts(ctx)
	if err != nil {
		return fmt.Errorf("counting what there is: %w", err)
	}
	for _, n := range counts {
		c.total += n
	}
	// Nothing of a part is nothing to write, but marks the destination as one that is not complete.
	switch err := c.to.Import(ctx, Part{}); {
	case errors.Is(err, ErrExists):
		c.complete = true
	case err != nil:
		return fmt.Errorf("beginning: %w", err)
	}
	steps := []func(context.Context) error{
		c.payments, c.wallets, c.reservations, c.revocations, c.allowances, c.objects, c.anchors, c.compare, c.verify, c.unchanged,
	}
	if c.complete {
		steps = []func(context.Context) error{c.sameWallets, c.sameAnchors, c.compare, c.verify, c.unchanged}
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if c.complete {
		return nil
	}
	if err := c.to.Import(ctx, Part{Complete: true}); err != nil {
		return fmt.Errorf("completing: %w", err)
	}
	return nil
}

func (c *copier) progress(step CopyStep, done, total int64) {
	if c.o.Progress != nil {
		c.o.Progress(CopyProgress{Step: step, Done: done, Total: total})
	}
}

// differs is the error for what is not equal in both.
func (c *copier) differs(format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if c.complete {
		return fmt.Errorf("%w: %s: the destination is in use", ErrExists, what)
	}
	return fmt.Errorf("%w: %s: stop what writes to the source, and begin again with an empty destination", ErrConflict, what)
}

// send imports a part.
func (c *copier) send(ctx context.Context, part Part, what string) error {
	if err := c.to.Import(ctx, part); err != nil {
		if errors.Is(err, ErrConflict) {
			return c.differs("%s (%v)", what, err)
		}
		return fmt.Errorf("writing %s: %w", what, err)
	}
	return nil
}

// payments sends all that come after the last one that arrived. What a crash left out before that is found by compare.
func (c *copier) payments(ctx context.Context) error {
	after, err := greatest(ctx, c.to)
	if err != nil {
		return err
	}
	for done := int64(0); ; {
		page, err := c.from.Records(ctx, after, c.o.PageSize)
		if err != nil {
			return fmt.Errorf("reading payments: %w", err)
		}
		if len(page) == 0 {
			return nil
		}
		if err := c.send(ctx, Part{Records: page}, "payments after "+after); err != nil {
			return err
		}
		after = page[len(page)-1].Payment.ID
		done += int64(len(page))
		c.report.Copied += int64(len(page))
		c.progress(CopyPayments, done, c.total)
	}
}

// greatest is the greatest id of a payment in b; empty if there is none. It climbs: at each place of the id to the
// greatest character there is, which takes some hundred small reads, however many payments there are.
func greatest(ctx context.Context, b Books) (string, error) {
	const above = "~" // any character of an id
	id, after := "", ""
	for place := 0; ; {
		page, err := b.Records(ctx, after, 1)
		switch {
		case err != nil:
			return "", fmt.Errorf("looking for the last payment that was copied: %w", err)
		case len(page) > 0:
			id = page[0].Payment.ID
		case after == "" || place >= len(id)-1:
			return id, nil
		default:
			place++
		}
		after = id[:place+1] + above
	}
}

func (c *copier) wallets(ctx context.Context) error {
	wallets, err := c.from.Wallets(ctx)
	if err != nil {
		return fmt.Errorf("reading wallets: %w", err)
	}
	for _, w := range wallets {
		if err := c.send(ctx, Part{Wallets: []Wallet{w}}, "wallet "+w.Address.Hex()); err != nil {
			return err
		}
		c.report.Wallets++
		c.progress(CopyWallets, int64(c.report.Wallets), int64(len(wallets)))
	}
	return nil
}

func (c *copier) reservations(ctx context.Context) error {
	each := func(f func(Reservation) error) error { return c.from.EachReservation(ctx, f) }
	return inPages(c.o.PageSize, each, func(page []Reservation) error {
		if err := c.send(ctx, Part{Reservations: page}, "reservations"); err != nil {
			return err
		}
		c.report.Reservations += int64(len(page))
		c.progress(CopyReservations, c.report.Reservations, 0)
		return nil
	})
}

func (c *copier) allowances(ctx context.Context) error {
	each := func(f func(Allowance) error) error { return c.from.EachAllowance(ctx, f) }
	return inPages(c.o.PageSize, each, func(page []Allowance) error {
		if err := c.send(ctx, Part{Allowances: page}, "allowances"); err != nil {
			return err
		}
		c.report.Allowances += int64(len(page))
		c.progress(CopyAllowances, c.report.Allowances, 0)
		return nil
	})
}

// inPages sends all that each gives, so many at a time.
func inPages[T any](size int, each func(func(T) error) error, send func([]T) error) error {
	var page []T
	err := each(func(v T) error {
		if page = append(page, v); len(page) < size {
			return nil
		}
		full := page
		page = nil
		return send(full)
	})
	if err != nil {
		return fmt.Errorf("reading what is copied: %w", err)
	}
	if len(page) == 0 {
		return nil
	}
	return send(page)
}

// revocations are sent in the order of their numbers, so that they have the same order in the copy.
func (c *copier) revocations(ctx context.Context) error {
	for after := uint64(0); ; {
		page, err := c.from.Revoked(ctx, after, c.o.PageSize)
		if err != nil {
			return fmt.Errorf("reading revocations: %w", err)
		}
		if len(page) > 0 {
			after = page[len(page)-1].Number
			if err := c.send(ctx, Part{Revocations: page}, "revocations"); err != nil {
				return err
			}
			c.report.Revocations += int64(len(page))
			c.progress(CopyRevocations, c.report.Revocations, 0)
		}
		if len(page) < c.o.PageSize {
			return nil
		}
	}
}

func (c *copier) objects(ctx context.Context) error {
	each := func(f func(Object) error) error { return c.from.EachObject(ctx, f) }
	return inPages(min(c.o.PageSize, objectsPage), each, func(page []Object) error {
		if err := c.send(ctx, Part{Objects: page}, "objects"); err != nil {
			return err
		}
		c.report.Objects += int64(len(page))
		c.progress(CopyObjects, c.report.Objects, 0)
		return nil
	})
}

func (c *copier) anchors(ctx context.Context) error {
	for after := uint64(0); ; {
		page, err := c.from.Anchors(ctx, after, anchorsPage)
		if err != nil {
			return fmt.Errorf("reading anchors: %w", err)
		}
		if len(page) > 0 {
			if err := c.send(ctx, Part{Anchors: page}, "anchors"); err != nil {
				return err
			}
			c.report.Anchors += int64(len(page))
			c.progress(CopyAnchors, c.report.Anchors, 0)
			after = page[len(page)-1].Sequence
		}
		if len(page) < anchorsPage {
			return c.sameAnchors(ctx)
		}
	}
}
