package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"
)

// verification checks a ledger that it is shown once: first its anchors, then each payment with its trail, at last the
// entries in the order of their time. It keeps some bytes for each anchor, and nothing for payments and entries.
type verification struct {
	o      VerifyOptions
	report Report

	start    time.Time // until when entries are not shown
	last     Anchor
	expected bool
	windows  []window
	partial  bool // only entries are shown, and no payments with their trails

	open  int // the window that the last entry belonged to
	found *anchoring
	mark  Mark
}

// window is what an anchor fixed, and what was found of it.
type window struct {
	sequence uint64
	until    time.Time
	count    uint64
	entries  common.Hash
	// trails and times are sums over its entries, as the trails and as the list ordered by time have them: the order
	// in which they are shown does not matter to a sum. Only what must be kept is in them.
	trails, times uint256.Int
}

func newVerification(o VerifyOptions) *verification {
	return &verification{o: o, found: newAnchoring(), expected: o.Expect == common.Hash{}}
}

func (v *verification) problem(p Problem, format string, args ...any) {
	v.report.Found++
	if len(v.report.Problems) < MaxProblems {
		p.Message = fmt.Sprintf(format, args...)
		v.report.Problems = append(v.report.Problems, p)
	}
}

// from begins behind an anchor: a file that goes on where another ended, and shows entries but no payments.
func (v *verification) from(a *Anchor) {
	if a.Hash != a.digest() {
		v.problem(Problem{Kind: ProblemAnchor, Anchor: a.Sequence}, "anchor %d was changed", a.Sequence)
	}
	v.last, v.start, v.partial = *a, a.Until, true
	v.expected = v.expected || a.Hash == v.o.Expect
}

// anchor takes the next anchor.
func (v *verification) anchor(a *Anchor) {
	p := Problem{Kind: ProblemAnchor, Anchor: a.Sequence}
	switch {
	case a.Hash != a.digest():
		v.problem(p, "anchor %d was changed", a.Sequence)
	case a.Sequence != v.last.Sequence+1:
		v.problem(p, "anchor %d comes after %d: anchors were removed", a.Sequence, v.last.Sequence)
	case !a.Follows(&v.last):
		v.problem(p, "anchor %d does not follow from anchor %d", a.Sequence, v.last.Sequence)
	}
	v.report.Anchors++
	v.last = *a
	v.expected = v.expected || a.Hash == v.o.Expect
	v.windows = append(v.windows, window{sequence: a.Sequence, until: a.Until, count: a.Count, entries: a.Entries})
}

// until is the time of the last entry that is anchored.
func (v *verification) until() time.Time { return v.last.Until }

// window finds the anchor that fixed what was made at a time: the first that reaches there. len(windows): none yet.
func (v *verification) window(at time.Time) int {
	i, _ := slices.BinarySearchFunc(v.windows, at, func(w window, at time.Time) int { return w.until.Compare(at) })
	return i
}

// kept reports whether an entry of that time must be there.
func (v *verification) kept(at time.Time) bool { return !at.Before(v.o.KeptSince) }

// record takes a payment with its trail.
func (v *verification) record(p *Payment, trail []Entry) {
	if err := VerifyAudit(p, trail); err != nil {
		v.problem(Problem{Kind: ProblemTrail, Payment: p.ID}, "%v", err)
	}
	v.report.Payments++
	for i := range trail {
		v.report.Entries++
		e := &trail[i]
		w := v.window(e.At)
		switch {
		case w == len(v.windows):
			v.report.Unanchored++
		case v.kept(e.At):
			v.windows[w].trails.Add(&v.windows[w].trails, number(e.Mark(), e.Hash))
		}
	}
	if v.o.Progress != nil && v.report.Payments%recordsPage == 0 {
		v.o.Progress(v.report.Payments)
	}
}

// transactions compares what was sent for a payment with its trail, and each with its hash.
func (v *verification) transactions(r *Record) {
	p := Problem{Kind: ProblemTransaction, Payment: r.Payment.ID}
	for i := range r.Trail {
		e := &r.Trail[i]
		if e.Event == EventSend && !slices.ContainsFunc(r.Transactions, func(t Transaction) bool { return t.Hash == e.Transaction }) {
			v.problem(p, "payment %s: the transaction %s, which entry %d says was sent, is missing", e.Payment, e.Transaction, e.Version)
		}
	}
	for i := range r.Transactions {
		if t := &r.Transactions[i]; crypto.Keccak256Hash(t.Raw) != t.Hash {
			v.problem(p, "payment %s: the transaction %s was changed", r.Payment.ID, t.Hash)
		}
	}
}

// number is a hash of an entry's mark and hash.
func number(m Mark, h common.Hash) *uint256.Int {
	b := make([]byte, 0, 128)
	b = append(b, h[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(m.At.UnixMicro()))
	b = binary.BigEndian.AppendUint64(b, m.Version)
	b = append(b, m.Payment...)
	sum := sha256.Sum256(b)
	return new(uint256.Int).SetBytes32(sum[:])
}

// entry takes the next entry of all, in the order of their time.
func (v *verification) entry(e *Entry) {
	if e.Hash != e.digest() {
		v.problem(Problem{Kind: ProblemEntry, Payment: e.Payment, Version: e.Version}, "payment %s, entry %d was changed", e.Payment, e.Version)
	}
	v.hash(e.Mark(), e.Hash)
}

// hash takes the mark and the hash of the next entry of all.
func (v *verification) hash(m Mark, hash common.Hash) {
	if !m.after(v.mark) {
		v.problem(Problem{Kind: ProblemEntry, Payment: m.Payment, Version: m.Version},
			"payment %s, entry %d is out of order", m.Payment, m.Version)
	}
	v.mark = m
	w := v.window(m.At)
	for v.open < w {
		v.close()
	}
	if w == len(v.windows) {
		return
	}
	v.found.add(hash)
	if v.kept(m.At) {
		v.windows[w].times.Add(&v.windows[w].times, number(m, hash))
	}
}

// close compares what was found of the open window with its anchor, and goes to the next.
func (v *verification) close() {
	w, n := &v.windows[v.open], v.found
	p := Problem{Kind: ProblemEntries, Anchor: w.sequence}
	from := v.start
	if v.open > 0 {
		from = v.windows[v.open-1].until
	}
	switch {
	case n.count < w.count && from.Before(v.o.KeptSince):
		v.report.Forgotten += int64(w.count - n.count)
	case n.count < w.count:
		v.problem(p, "anchor %d fixed %d entries, %d are there: entries were removed", w.sequence, w.count, n.count)
	case n.count > w.count:
		v.problem(p, "anchor %d fixed %d entries, %d are there: entries were added", w.sequence, w.count, n.count)
	case n.hash() != w.entries:
		v.problem(p, "the entries that anchor %d fixed were changed", w.sequence)
	}
	if !v.partial && w.trails != w.times {
		v.problem(p, "of what anchor %d fixed, the trails of the payments and the list by time hold different entries", w.sequence)
	}
	v.open++
	v.found = newAnchoring()
}

// finish gives the report when all was shown.
func (v *verification) finish() Report {
	for v.open < len(v.windows) {
		v.close()
	}
	if !v.expected {
		v.problem(Problem{Kind: ProblemExpected}, "the anchor %s, which was kept outside, is not in the chain", v.o.Expect)
	}
	v.report.LastAnchor = v.last.Hash
	if v.o.Progress != nil {
		v.o.Progress(v.report.Payments)
	}
	return v.report
}
