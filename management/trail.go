package management

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/apikey"
)

func (a *API) addTrail() {
	add(a, operation{
		rule: rule{id: "exportAudit", method: http.MethodGet, scope: apikey.PaymentsRead}, path: "/v1/audit/export", tag: tagBooks,
		summary: "Exports the audit trail of all payments with its anchors, as JSON lines",
		description: "`caddy x402 audit verify <file>` checks what was exported. The last line is of the type `end`: without it something was cut off. One is made at a time. " +
			wholeHelp,
	}, a.exportAudit)
	add(a, operation{
		rule: rule{id: "verifyAudit", method: http.MethodGet, scope: apikey.PaymentsRead}, path: "/v1/audit/verify", tag: tagBooks,
		summary: "Finds out whether the audit trail of all payments holds together, and is what its anchors fixed",
		description: "Give the hash of an anchor that you have kept elsewhere: without it nobody can tell that the newest anchors were removed with what they fixed. " +
			"The whole ledger is read; one is made at a time. " + wholeHelp,
	}, a.verifyAudit)
}

// auditLocked has one of what reads all of a ledger done at a time.
func (a *API) auditLocked(x *exchange, do func() error) error {
	if err := x.whole(); err != nil {
		return err
	}
	if !a.auditing.TryLock() {
		e := told(http.StatusConflict, CodeAuditUnderWay, "the ledger is being exported or verified for somebody already; try again", nil)
		e.RetryAfter = auditAgain
		return e
	}
	defer a.auditing.Unlock()
	return do()
}

// auditAgain is after how many seconds it is worth to ask again.
const auditAgain = 10

type exportAuditInput struct {
	After uint64 `query:"after" doc:"The number of an anchor: only what later ones have fixed. So an archive grows file by file"`
}

// exportAudit streams. What goes wrong before the first byte is told as any error is.
func (a *API) exportAudit(_ context.Context, x *exchange, in *exportAuditInput) (*exportOutput, error) {
	out := &exportOutput{ContentType: "application/jsonl", Disposition: `attachment; filename="audit.jsonl"`}
	out.Body = func(huma.Context) {
		ctx := x.r.Context()
		w := &lateStream{x: x}
		err := a.auditLocked(x, func() error {
			if x.r.Method == http.MethodHead {
				return nil
			}
			_, err := ledger.Export(ctx, x.shop.Store, w, ledger.ExportOptions{AfterAnchor: in.After})
			return err
		})
		switch {
		case err == nil:
		case w.to == nil && errors.Is(err, ledger.ErrNotFound):
			x.failure = told(http.StatusNotFound, CodeAnchorNotFound, "there is no anchor with this number", err)
		case w.to == nil:
			x.failure = err
		default:
			if ctx.Err() == nil {
				a.log.ErrorContext(ctx, "an export was cut off", slog.String("request", x.id), slog.Any("error", err))
			}
			w.to.cut()
		}
	}
	return out, nil
}

// lateStream is a stream that begins with the first byte.
type lateStream struct {
	x  *exchange
	to *stream // nil: nothing was written
}

var _ io.Writer = (*lateStream)(nil)

// Write implements io.Writer.
func (s *lateStream) Write(b []byte) (int, error) {
	if s.to == nil {
		s.to = s.x.stream()
	}
	return s.to.Write(b)
}

type verifyAuditInput struct {
	Expect    string    `query:"expect" doc:"The hash of an anchor that was kept elsewhere"`
	KeptSince time.Time `query:"keptSince" doc:"Since when closed payments are kept (RFC 3339), where the ledger forgets them. Default: as the configuration has it"`
}

// AuditReport is what a verification saw.
type AuditReport struct {
	Holds      bool           `json:"holds" doc:"Whether nothing is wrong"`
	Payments   int64          `json:"payments"`
	Entries    int64          `json:"entries"`
	Anchors    int64          `json:"anchors"`
	Unanchored int64          `json:"unanchored" doc:"Entries that are younger than the last anchor: a whole trail of them that was removed is not missed"`
	Forgotten  int64          `json:"forgotten" doc:"Entries that were anchored, and removed by retention since"`
	LastAnchor string         `json:"lastAnchor,omitempty" doc:"The newest anchor's hash; keep it elsewhere"`
	Found      int64          `json:"found" doc:"How many things are wrong"`
	Problems   []AuditProblem `json:"problems" doc:"The first of them"`
}

// AuditProblem is one thing that is wrong with a ledger.
type AuditProblem struct {
	Kind    string `json:"kind" doc:"trail, entry, entries, anchor, expected, transaction or filed"`
	Payment string `json:"payment,omitempty"`
	Version uint64 `json:"version,omitempty"`
	Anchor  uint64 `json:"anchor,omitempty"`
	Message string `json:"message"`
}

func auditReport(r *ledger.Report) AuditReport {
	out := AuditReport{
		Holds: r.Found == 0, Payments: r.Payments, Entries: r.Entries, Anchors: r.Anchors, Unanchored: r.Unanchored, Forgotten: r.Forgotten, Found: r.Found,
		Problems: []AuditProblem{},
	}
	if r.LastAnchor != (common.Hash{}) {
		out.LastAnchor = r.LastAnchor.Hex()
	}
	for i := range r.Problems {
		p := &r.Problems[i]
		out.Problems = append(out.Problems, AuditProblem{string(p.Kind), p.Payment, p.Version, p.Anchor, p.Message})
	}
	return out
}

type verifyAuditOutput struct{ Body AuditReport }

func (a *API) verifyAudit(ctx context.Context, x *exchange, in *verifyAuditInput) (*verifyAuditOutput, error) {
	o := ledger.VerifyOptions{KeptSince: in.KeptSince}
	if in.Expect != "" {
		if err := o.Expect.UnmarshalText([]byte(in.Expect)); err != nil || o.Expect == (common.Hash{}) {
			return nil, invalid("query.expect", "it must be the hash of an anchor: 0x and 64 hexadecimal digits")
		}
	}
	if o.KeptSince.IsZero() && x.shop.Forgets > 0 {
		o.KeptSince = x.shop.Store.Now().Add(-x.shop.Forgets)
	}
	var report ledger.Report
	err := a.auditLocked(x, func() (err error) {
		report, err = ledger.Verify(ctx, x.shop.Store, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &verifyAuditOutput{auditReport(&report)}, nil
}
