package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"math"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// Anchor fixes the audit entries of all payments up to a time. Each carries the hash of the one before, so that
// whoever keeps the last one can find that an entry, a whole payment or an anchor was changed or removed. A single
// chain over all entries would do the same, and make all writers wait for each other.
type Anchor struct {
	// Sequence numbers anchors from 1 without a gap.
	Sequence uint64 `json:"anchor"`
	// Until is the time of the last entries that it fixes; it fixes those after the Until of the one before.
	Until time.Time `json:"until"`
	// Count is how many entries it fixes, and Entries the SHA-256 of their hashes, ordered by time, payment and version.
	Count   uint64      `json:"count"`
	Entries common.Hash `json:"entries"`
	// Previous is the Hash of the anchor before; zero in the first.
	Previous common.Hash `json:"previous"`
	Hash     common.Hash `json:"hash"`
}

// AnchorLag is how old entries must be to be anchored. Whatever a store's transaction takes from asking the clock to its
// end takes less: otherwise an entry could come in below an anchor that was made already.
const AnchorLag = time.Minute

// Follows reports whether a is whole and comes right after last (nil: there is none).
func (a *Anchor) Follows(last *Anchor) bool {
	var zero Anchor
	if last == nil {
		last = &zero
	}
	return a.Sequence == last.Sequence+1 && a.Previous == last.Hash && a.Until.After(last.Until) && a.Hash == a.digest()
}

// digest hashes the anchor without its own hash; see Entry.digest.
func (a Anchor) digest() common.Hash {
	a.Hash = common.Hash{}
	a.Until = moment(a.Until)
	b, err := json.Marshal(a)
	if err != nil { // no field of Anchor can fail
		return common.Hash{}
	}
	return sha256.Sum256(b)
}

// anchoring makes an anchor of entries that are added in order.
type anchoring struct {
	sum   hash.Hash
	count uint64
}

func newAnchoring() *anchoring { return &anchoring{sum: sha256.New()} }

func (n *anchoring) add(entry common.Hash) {
	n.sum.Write(entry[:])
	n.count++
}

func (n *anchoring) hash() common.Hash { return common.Hash(n.sum.Sum(nil)) }

func (n *anchoring) anchor(last Anchor, until time.Time) Anchor {
	a := Anchor{
		Sequence: last.Sequence + 1, Until: moment(until), Count: n.count,
		Entries: n.hash(), Previous: last.Hash,
	}
	a.Hash = a.digest()
	return a
}

// NextAnchor makes the next anchor, over all entries that are older than AnchorLag, and stores it. Without new
// entries there is none (ErrNotFound). Several instances may try at once: one succeeds, the others get ErrConflict.
func NextAnchor(ctx context.Context, b Books, now time.Time) (Anchor, error) {
	last, err := b.LastAnchor(ctx)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Anchor{}, fmt.Errorf("reading the last anchor: %w", err)
	}
	until := moment(now.Add(-AnchorLag))
	n := newAnchoring()
	err = eachEntry(ctx, b, afterTime(last.Until), until, func(e *Entry) error { n.add(e.Hash); return nil })
	if err != nil {
		return Anchor{}, err
	}
	if n.count == 0 {
		return Anchor{}, fmt.Errorf("%w: there is nothing new to anchor", ErrNotFound)
	}
	a := n.anchor(last, until)
	if err := b.AddAnchor(ctx, a); err != nil {
		return Anchor{}, fmt.Errorf("storing anchor %d: %w", a.Sequence, err)
	}
	return a, nil
}

// afterTime is the mark behind all entries at the time t.
func afterTime(t time.Time) Mark { return Mark{At: t, Payment: "\x7f", Version: math.MaxInt64} }

// after reports whether m is behind o in the order of entries.
func (m Mark) after(o Mark) bool {
	if c := m.At.Compare(o.At); c != 0 {
		return c > 0
	}
	if c := strings.Compare(m.Payment, o.Payment); c != 0 {
		return c > 0
	}
	return m.Version > o.Version
}
