package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// VerifyOptions are what Verify, VerifyExport and Copy can be told of a ledger. The zero value is good.
type VerifyOptions struct {
	// Expect, where it is not zero, is the Hash of an anchor that was kept outside of the store: it must be in the chain.
	// Without it nobody can tell that the newest anchors, and what they fixed, were removed together.
	Expect common.Hash
	// KeptSince, where it is not zero, is since when payments that are closed are kept: those that were last changed before
	// may have been forgotten (Redis with a retention). What anchors lack from before is then counted as Forgotten. The
	// anchor whose window reaches over this time is judged like those before it: what is left of its entries can't be compared
	// with its hash.
	KeptSince time.Time
	// Progress, where it is set, is told now and then how many payments were verified.
	Progress func(payments int64)
}

// Report is what a verification saw.
type Report struct {
	Payments int64 `json:"payments"`
	Entries  int64 `json:"entries"`
	Anchors  int64 `json:"anchors"`
	// Unanchored entries are younger than the last anchor: each trail is whole, but a trail that was removed is not missed.
	Unanchored int64 `json:"unanchored"`
	// Forgotten entries were anchored and removed by retention since; see VerifyOptions.KeptSince.
	Forgotten int64 `json:"forgotten,omitempty"`
	// LastAnchor is the newest anchor's hash, to be kept outside; zero if there is none.
	LastAnchor common.Hash `json:"last_anchor,omitzero"`
	// Found counts the problems; Problems are the first MaxProblems of them.
	Found    int64     `json:"found"`
	Problems []Problem `json:"problems,omitempty"`
}

// MaxProblems is how many problems a Report lists.
const MaxProblems = 100

// ProblemKind says what is wrong.
type ProblemKind string

// The kinds of problems.
const (
	ProblemTrail    ProblemKind = "trail"    // a payment's trail does not hold together, or does not lead to the payment
	ProblemEntry    ProblemKind = "entry"    // an entry was changed, or is out of order
	ProblemEntries  ProblemKind = "entries"  // entries that an anchor fixed were removed, changed or added
	ProblemAnchor   ProblemKind = "anchor"   // an anchor was removed or changed
	ProblemExpected ProblemKind = "expected" // the anchor that was kept outside is not in the chain
	ProblemFormat   ProblemKind = "format"   // the exported file is cut off, or not what Export wrote
	// A transaction that a trail says was sent is missing, or is not what its hash says.
	ProblemTransaction ProblemKind = "transaction"
	// ProblemFiled: a payment is found as what it is not; see Filed.
	ProblemFiled ProblemKind = "filed"
)

// Problem is one thing that is wrong.
type Problem struct {
	Kind ProblemKind `json:"kind"`
	// Payment and Version name an entry, Anchor is an anchor's sequence number; empty where the problem is not theirs.
	Payment string `json:"payment,omitempty"`
	Version uint64 `json:"version,omitempty"`
	Anchor  uint64 `json:"anchor,omitempty"`
	// Message says it to the operator.
	Message string `json:"message"`
}

// Filed is a store that keeps beside a payment what it is found by (its state, whether it is open, unserved or closed) and the
// hash of its last entry. One of them that is wrong hides a payment from who works on it, and no trail shows that.
type Filed interface {
	// EachMisfiled calls f with every payment of which something is wrong, and says what, until f fails.
	EachMisfiled(ctx context.Context, f func(payment, how string) error) error
}

// Verify checks a whole ledger: the trail of every payment, that the trails and the entries in the order of their time are the
// same ones, that they are those which the chain of anchors fixed, and that the transactions which the trails say were sent are
// there and are what their hashes say (VerifyExport can't tell: an export has no transactions). Of a store that is Filed it also
// checks that payments are found as what they are; of no store can it tell whether a lease was put off, or is one too many. The store may be in use meanwhile. An error
// says that the store could not be read; what is wrong with the ledger is in the Report.
func Verify(ctx context.Context, b Books, o VerifyOptions) (Report, error) {
	v := newVerification(o)
	if err := eachAnchor(ctx, b, 0, func(a *Anchor) error { v.anchor(a); return nil }); err != nil {
		return v.report, err
	}
	err := eachRecord(ctx, b, func(r *Record) error {
		v.record(&r.Payment, r.Trail)
		v.transactions(r)
		return nil
	})
	if err != nil {
		return v.report, err
	}
	if filed, ok := b.(Filed); ok {
		err = filed.EachMisfiled(ctx, func(id, how string) error {
			v.problem(Problem{Kind: ProblemFiled, Payment: id}, "payment %s is filed as what it is not: %s", id, how)
			return nil
		})
		if err != nil {
			return v.report, fmt.Errorf("reading how payments are filed: %w", err)
		}
	}
	err = eachEntry(ctx, b, Mark{}, v.until(), func(e *Entry) error { v.entry(e); return nil })
	if err != nil {
		return v.report, err
	}
	return v.finish(), nil
}

// The pages in which a store is read.
const (
	entriesPage = 1000
	recordsPage = 500
	anchorsPage = 1000
)

func eachAnchor(ctx context.Context, b Books, after uint64, f func(*Anchor) error) error {
	for {
		page, err := b.Anchors(ctx, after, anchorsPage)
		if err != nil {
			return fmt.Errorf("reading anchors: %w", err)
		}
		for i := range page {
			if err := f(&page[i]); err != nil {
				return err
			}
		}
		if len(page) < anchorsPage {
			return nil
		}
		after = page[len(page)-1].Sequence
	}
}

func eachRecord(ctx context.Context, b Books, f func(*Record) error) error {
	for after := ""; ; {
		page, err := b.Records(ctx, after, recordsPage)
		if err != nil {
			return fmt.Errorf("reading payments: %w", err)
		}
		for i := range page {
			if err := f(&page[i]); err != nil {
				return err
			}
		}
		if len(page) < recordsPage {
			return nil
		}
		after = page[len(page)-1].Payment.ID
	}
}

func eachEntry(ctx context.Context, b Books, after Mark, until time.Time, f func(*Entry) error) error {
	for {
		page, err := b.Entries(ctx, after, until, entriesPage)
		if err != nil {
			return fmt.Errorf("reading audit entries: %w", err)
		}
		for i := range page {
			if err := f(&page[i]); err != nil {
				return err
			}
		}
		if len(page) < entriesPage {
			return nil
		}
		after = page[len(page)-1].Mark()
	}
}
