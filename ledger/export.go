package ledger

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// ExportOptions choose what Export writes. The zero value is the whole ledger.
type ExportOptions struct {
	// AfterAnchor, where it is not zero, is an anchor's sequence number: only the anchors after it are written, with
	// the entries that they fixed, in the order of their time. So an archive grows file by file, each beginning where the one
	// before ended.
	AfterAnchor uint64
	// Progress, where it is set, is told now and then how many lines were written.
	Progress func(lines int64)
}

// ExportSummary is what Export wrote.
type ExportSummary struct {
	Payments int64 `json:"payments"`
	Entries  int64 `json:"entries"`
	Anchors  int64 `json:"anchors"`
	// LastAnchor is the sequence number of the newest anchor, for the next ExportOptions.AfterAnchor.
	LastAnchor uint64 `json:"last_anchor,omitempty"`
}

// exportFormat numbers the form of an exported file.
const exportFormat = 1

// The types of lines, in the order in which they come: one "ledger"; the "anchor"s; then of a whole ledger each
// "payment", by id, followed by its trail of "entry"s, and a "mark" for each entry that is anchored, in the order of their
// time; of a part of it only the "entry"s, in the order of their time. An "end" tells that nothing was cut off.
const (
	lineLedger  = "ledger"
	lineAnchor  = "anchor"
	linePayment = "payment"
	lineEntry   = "entry"
	lineMark    = "mark"
	lineEnd     = "end"
)

type (
	ledgerLine struct {
		Type   string `json:"type"`
		Format int    `json:"format"`
		// After is the anchor behind which a part of a ledger begins.
		After *Anchor `json:"after,omitempty"`
	}
	anchorLine struct {
		Type string `json:"type"`
		*Anchor
	}
	paymentLine struct {
		Type  string `json:"type"`
		State State  `json:"state"`
		*plainPayment
	}
	plainPayment Payment
	entryLine    struct {
		Type string `json:"type"`
		*Entry
	}
	markLine struct {
		Type    string      `json:"type"`
		At      time.Time   `json:"at"`
		Payment string      `json:"payment"`
		Version uint64      `json:"version"`
		Hash    common.Hash `json:"hash"`
	}
	endLine struct {
		Type string `json:"type"`
		ExportSummary
	}
)

// Export writes the ledger as JSON lines: objects with a "type". First the chain of anchors; then every payment, in the
// order of their ids, each followed by the entries of its trail; then, in the order of time, a mark with the hash of every entry that
// is anchored, which shows that the trails are those that the anchors fixed. So VerifyExport needs no memory for what it has
// read. The store may be in use meanwhile. ErrNotFound if there is no anchor o.AfterAnchor.
func Export(ctx context.Context, b Books, w io.Writer, o ExportOptions) (ExportSummary, error) {
	buffered := bufio.NewWriterSize(w, 1<<16)
	x := &exporter{to: json.NewEncoder(buffered), progress: o.Progress}
	x.to.SetEscapeHTML(false)
	err := x.export(ctx, b, o.AfterAnchor)
	if err == nil {
		err = x.line(endLine{lineEnd, x.sum})
	}
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return x.sum, fmt.Errorf("exporting the ledger: %w", err)
	}
	if o.Progress != nil {
		o.Progress(x.lines)
	}
	return x.sum, nil
}

type exporter struct {
	to       *json.Encoder
	progress func(int64)
	lines    int64
	sum      ExportSummary
}

func (x *exporter) line(v any) error {
	if x.lines++; x.progress != nil && x.lines%1000 == 0 {
		x.progress(x.lines)
	}
	return x.to.Encode(v)
}

func (x *exporter) export(ctx context.Context, b Books, after uint64) error {
	var last Anchor
	head := ledgerLine{Type: lineLedger, Format: exportFormat}
	if after > 0 {
		page, err := b.Anchors(ctx, after-1, 1)
		if err != nil {
			return fmt.Errorf("reading anchors: %w", err)
		}
		if len(page) == 0 || page[0].Sequence != after {
			return fmt.Errorf("%w: there is no anchor %d", ErrNotFound, after)
		}
		last, head.After, x.sum.LastAnchor = page[0], &page[0], after
	}
	begin := last.Until
	if err := x.line(head); err != nil {
		return err
	}
	err := eachAnchor(ctx, b, after, func(a *Anchor) error {
		last, x.sum.LastAnchor = *a, a.Sequence
		x.sum.Anchors++
		return x.line(anchorLine{lineAnchor, a})
	})
	if err != nil {
		return err
	}
	if after > 0 {
		return eachEntry(ctx, b, afterTime(begin), last.Until, x.entry)
	}
	if err := eachRecord(ctx, b, x.record); err != nil {
		return err
	}
	return eachEntry(ctx, b, Mark{}, last.Until, func(e *Entry) error {
		return x.line(markLine{lineMark, e.At, e.Payment, e.Version, e.Hash})
	})
}

func (x *exporter) record(r *Record) error {
	x.sum.Payments++
	p := &r.Payment
	if err := x.line(paymentLine{linePayment, p.State(), (*plainPayment)(p)}); err != nil {
		return err
	}
	for i := range r.Trail {
		if err := x.entry(&r.Trail[i]); err != nil {
			return err
		}
	}
	return nil
}

func (x *exporter) entry(e *Entry) error {
	x.sum.Entries++
	return x.line(entryLine{lineEntry, e})
}

// maxLine is the longest line that VerifyExport reads; a payment's URI is what may make one long.
const maxLine = 16 << 20

// VerifyExport checks a file that Export wrote, as Verify does a store, without any store, and reads it once. Of a part
// of a ledger it shows that its entries are those which the anchors fixed, and that the anchors follow from the one
// that the part begins with. An error says that r could not be read; what is wrong with the file is in the Report.
func VerifyExport(ctx context.Context, r io.Reader, o VerifyOptions) (Report, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 1<<16), maxLine)
	x := &importer{v: newVerification(o)}
	for lines.Scan() {
		x.number++
		if x.number%1000 == 0 && ctx.Err() != nil {
			return x.v.report, ctx.Err()
		}
		x.line(lines.Bytes())
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		x.number++
		x.wrong("it is too long")
	} else if err != nil {
		return x.v.report, fmt.Errorf("reading the export: %w", err)
	}
	return x.finish(), nil
}

// importer reads the lines of an export.
type importer struct {
	v      *verification
	number int64
	stage  stage
	sum    ExportSummary

	// The payment that is read, with its trail so far.
	payment *Payment
	trail   []Entry
	id      string // of the last payment
}

type stage int

// The stages of an export. Each type of line belongs to one.
const (
	begin stage = iota
	anchors
	payments
	marks
	end
)

func (x *importer) wrong(format string, args ...any) {
	x.v.problem(Problem{Kind: ProblemFormat}, "line %d: "+format, append([]any{x.number}, args...)...)
}

// enter goes on to the stage s, if the file is not beyond it.
func (x *importer) enter(s stage, line string) bool {
	if s < x.stage || x.stage == begin || x.stage == end {
		x.wrong("a line of type %q does not belong here", line)
		return false
	}
	if s > payments {
		x.flush()
	}
	x.stage = s
	return true
}

func (x *importer) line(b []byte) {
	var kind struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(b, &kind); err != nil {
		x.wrong("it is no JSON object: %v", err)
		return
	}
	var err error
	switch kind.Type {
	case lineLedger:
		err = x.head(b)
	case lineAnchor:
		a := anchorLine{Anchor: &Anchor{}}
		if err = strictly(b, &a); err == nil && x.enter(anchors, kind.Type) {
			x.sum.Anchors++
			x.sum.LastAnchor = a.Sequence
			x.v.anchor(a.Anchor)
		}
	case linePayment:
		err = x.begin(b)
	case lineEntry:
		e := entryLine{Entry: &Entry{}}
		if err = strictly(b, &e); err == nil && x.enter(payments, kind.Type) {
			x.entry(e.Entry)
		}
	case lineMark:
		var m markLine
		if err = strictly(b, &m); err == nil && x.enter(marks, kind.Type) {
			x.v.hash(Mark{At: m.At, Payment: m.Payment, Version: m.Version}, m.Hash)
		}
	case lineEnd:
		var e endLine
		if err = strictly(b, &e); err == nil && x.enter(end, kind.Type) && e.ExportSummary != x.sum {
			x.wrong("the file should have %+v, it has %+v", e.ExportSummary, x.sum)
		}
	default:
		x.wrong("the type %q is not known", kind.Type)
	}
	if err != nil {
		x.wrong("it can't be read: %v", err)
	}
}

// strictly decodes a line that has no other fields than v: one that was renamed would be taken for one that is empty.
func strictly(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

func (x *importer) head(b []byte) error {
	var l ledgerLine
	if err := strictly(b, &l); err != nil {
		return err
	}
	switch {
	case x.stage != begin:
		x.wrong("a second beginning")
		return nil
	case l.Format != exportFormat:
		x.wrong("the format %d is not known", l.Format)
	case l.After != nil:
		x.sum.LastAnchor = l.After.Sequence
		x.v.from(l.After)
	}
	x.stage = anchors
	return nil
}

func (x *importer) begin(b []byte) error {
	p := &Payment{}
	l := paymentLine{plainPayment: (*plainPayment)(p)}
	if err := strictly(b, &l); err != nil {
		return err
	}
	if !x.enter(payments, linePayment) {
		return nil
	}
	x.flush()
	if p.ID <= x.id {
		x.v.problem(Problem{Kind: ProblemFormat, Payment: p.ID}, "payment %s is out of order", p.ID)
	}
	if l.State != p.State() {
		x.v.problem(Problem{Kind: ProblemTrail, Payment: p.ID}, "payment %s is %s, not %s", p.ID, p.State(), l.State)
	}
	x.sum.Payments++
	x.id, x.payment, x.trail = p.ID, p, x.trail[:0]
	return nil
}

func (x *importer) entry(e *Entry) {
	x.sum.Entries++
	switch {
	case x.v.partial:
		x.v.report.Entries++
		x.v.entry(e)
	case x.payment == nil:
		x.wrong("an entry without a payment")
	default:
		x.trail = append(x.trail, *e)
	}
}

// flush verifies the payment that was read, if there is one.
func (x *importer) flush() {
	if x.payment != nil {
		x.v.record(x.payment, x.trail)
		x.payment = nil
	}
}

func (x *importer) finish() Report {
	x.flush()
	if x.stage != end {
		x.v.problem(Problem{Kind: ProblemFormat}, "after line %d: the file is cut off", x.number)
	}
	return x.v.finish()
}
