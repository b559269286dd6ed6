package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// summaryTrailer carries what an export wrote, behind its last line.
const summaryTrailer = "X402-Summary"

func serveExport(w http.ResponseWriter, r *http.Request, d *desk) error {
	after, err := parseAfter(r.URL.Query())
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/jsonl")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodHead {
		return nil
	}
	summary, err := d.export(r.Context(), w, after, nil)
	if err != nil {
		return err
	}
	text, err := json.Marshal(summary)
	if err != nil {
		return fmt.Errorf("encoding the summary: %w", err)
	}
	h.Set(http.TrailerPrefix+summaryTrailer, string(text))
	return nil
}

func serveVerify(w http.ResponseWriter, r *http.Request, d *desk) error {
	o, err := parseVerifyQuery(r.URL.Query())
	if err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "application/json")
		return nil
	}
	report, err := d.verify(r.Context(), o)
	if err != nil {
		return err
	}
	return writeJSON(w, r, http.StatusOK, report)
}

// parseAfter reads the sequence number of the anchor that an export begins after.
func parseAfter(v url.Values) (uint64, error) {
	if err := onlyParameters(v, "after"); err != nil || v.Get("after") == "" {
		return 0, err
	}
	n, err := strconv.ParseUint(v.Get("after"), 10, 64)
	if err != nil {
		return 0, invalidRequest("after must be the number of an anchor")
	}
	return n, nil
}

func parseVerifyQuery(v url.Values) (o ledger.VerifyOptions, err error) {
	if err := onlyParameters(v, "expect", "kept_since"); err != nil {
		return o, err
	}
	if o.Expect, err = parseExpect(v.Get("expect")); err != nil {
		return o, err
	}
	o.KeptSince, err = parseKeptSince(v.Get("kept_since"))
	return o, err
}

func verifyValues(o ledger.VerifyOptions) url.Values {
	v := url.Values{}
	if o.Expect != (common.Hash{}) {
		v.Set("expect", o.Expect.Hex())
	}
	if !o.KeptSince.IsZero() {
		v.Set("kept_since", o.KeptSince.Format(time.RFC3339))
	}
	return v
}

func parseExpect(s string) (h common.Hash, err error) {
	if s == "" {
		return h, nil
	}
	if err := h.UnmarshalText([]byte(s)); err != nil || h == (common.Hash{}) {
		return h, invalidRequest("expect must be the hash of an anchor: 0x and 64 hexadecimal digits")
	}
	return h, nil
}

func parseKeptSince(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range [...]string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, invalidRequest("kept_since must be a time such as 2026-01-31T12:00:00Z, or a day such as 2026-01-31")
}

// export writes the audit trail of all payments, with the anchors, as JSON lines.
func (d *desk) export(ctx context.Context, w io.Writer, after uint64, progress func(int64)) (ledger.ExportSummary, error) {
	summary, err := ledger.Export(ctx, d.store, w, ledger.ExportOptions{AfterAnchor: after, Progress: progress})
	if errors.Is(err, ledger.ErrNotFound) {
		return summary, &operatorError{http.StatusNotFound, codeNoAnchor, fmt.Sprintf("there is no anchor %d", after), err}
	}
	return summary, err
}

func (d *desk) verify(ctx context.Context, o ledger.VerifyOptions) (ledger.Report, error) {
	if d.forgets > 0 && o.KeptSince.IsZero() {
		o.KeptSince = d.store.Now().Add(-d.forgets)
	}
	return ledger.Verify(ctx, d.store, o)
}
