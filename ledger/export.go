package ledger

import (
	"context"
	"io"
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

// Export writes the ledger as JSON lines. Each line is an object with a "type"; see VerifyExport for their order. The
// store may be in use meanwhile.
func Export(ctx context.Context, b Books, w io.Writer, o ExportOptions) (ExportSummary, error) {
	return ExportSummary{}, nil
}

// VerifyExport checks a file that Export wrote, as Verify does a store, without any store.
func VerifyExport(ctx context.Context, r io.Reader, o VerifyOptions) (Report, error) {
	return Report{}, nil
}
