package management

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// Selection says which payments are meant.
type Selection struct {
	State   ledger.State
	Payer   common.Address
	Network string      // Mainnet or Testnet; empty: both
	Since   time.Time   // those made at this time or later; zero: all
	Until   time.Time   // those made before it; zero: all
	Plans   bool        // those that bought one
	After   ledger.Mark // those that come after this one in a list

	first int // how many are looked at first, where most are likely to match; 0: a page of a scan
}

const (
	scanPage = 200
	// maxScan bounds how many payments one answer is looked for among: where few of many match, a page is short, and the next goes on.
	maxScan = 5000
)

// errEnough ends a scan.
var errEnough = errors.New("management: enough")

// each calls f with the payments that are selected, newest first, until f gives errEnough or most were looked at (0: all are). last is where
// it has come to, and more whether there may be further ones.
func (s *Shop) each(ctx context.Context, which Selection, most int, f func(*ledger.Payment) error) (last ledger.Mark, more bool, err error) {
	q := ledger.Query{State: which.State, Payer: which.Payer, Before: which.After, Limit: cmp.Or(which.first, scanPage)}
	if q.Before == (ledger.Mark{}) && !which.Until.IsZero() {
		q.Before = ledger.Mark{At: which.Until}
	}
	for seen := 0; ; {
		list, err := s.Store.List(ctx, q)
		if err != nil {
			return last, false, err
		}
		for i := range list {
			p := &list[i]
			if p.CreatedAt.Before(which.Since) {
				return last, false, nil
			}
			if (which.Network == "" || s.networkOf(p.ChainID) == which.Network) && (!which.Plans || p.Binding.Plan != "") {
				if err := f(p); errors.Is(err, errEnough) {
					return last, true, nil
				} else if err != nil {
					return last, false, err
				}
			}
			last = ledger.Mark{At: p.CreatedAt, Payment: p.ID}
			if seen++; seen == most {
				return last, true, nil
			}
		}
		if len(list) < q.Limit {
			return last, false, nil
		}
		q.Before, q.Limit = last, scanPage
	}
}

// List gives at most limit payments of a selection, newest first, and the cursor of what follows; empty: there is nothing more.
func (s *Shop) List(ctx context.Context, which Selection, limit int) ([]ledger.Payment, string, error) {
	var out []ledger.Payment
	which.first = min(limit+1, scanPage)
	last, more, err := s.each(ctx, which, maxScan, func(p *ledger.Payment) error {
		if len(out) == limit {
			return errEnough
		}
		out = append(out, *p)
		return nil
	})
	if err != nil || !more {
		return out, "", err
	}
	return out, cursor(last), nil
}

// A cursor is the last payment of a page: when it was made, in microseconds, and its id.
func cursor(m ledger.Mark) string {
	return strconv.FormatInt(m.At.UnixMicro(), 10) + "-" + m.Payment
}

var errCursor = invalid("query.cursor", "it is none; give the next of a page as it is")

// ParseCursor reads what List has given, or nothing.
func ParseCursor(s string) (ledger.Mark, error) {
	if s == "" {
		return ledger.Mark{}, nil
	}
	at, id, _ := strings.Cut(s, "-")
	micros, err := strconv.ParseInt(at, 10, 64)
	if _, ok := ledger.ShardOf(id); err != nil || micros <= 0 || !ok {
		return ledger.Mark{}, errCursor
	}
	return ledger.Mark{At: time.UnixMicro(micros).UTC(), Payment: id}, nil
}

// afterID reads the cursor of a list of the ledger's objects: the id of the last one of the page before, or nothing.
func (in *PageInput) afterID() (string, error) {
	if in.Cursor != "" && !ledger.IsObjectName(kindAudit, in.Cursor) { // all kinds have ids of one form
		return "", errCursor
	}
	return in.Cursor, nil
}

// cutPage cuts a list, of which one more was asked for than a page may have, and says where the next page begins.
func cutPage[T any](list []T, limit int, id func(*T) string) ([]T, Page) {
	if len(list) <= limit {
		return list, Page{}
	}
	return list[:limit], Page{Next: id(&list[limit-1])}
}

func parseState(s string) (ledger.State, error) {
	state := ledger.State(strings.ToUpper(strings.ReplaceAll(s, "-", "_")))
	if s == "" || slices.Contains(ledger.States(), state) {
		return state, nil
	}
	var words []string
	for _, w := range ledger.States() {
		words = append(words, string(w))
	}
	return "", invalid("query.state", "there is no such state; there are "+strings.Join(words, ", "))
}

func parsePayer(s string) (common.Address, error) {
	if s == "" {
		return common.Address{}, nil
	}
	b, err := hexutil.Decode(s)
	if err != nil || len(b) != common.AddressLength {
		return common.Address{}, invalid("query.payer", "it must be an address: 0x and 40 hexadecimal digits")
	}
	return common.BytesToAddress(b), nil
}
