package paywall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/x402"
)

// A store can lose what it had acknowledged: one that was restored from an older copy, or that lost power before its last
// writes were on disk. Then
//   - an authorization that was used is refused at first sight, since the chain knows that it was used;
//   - one that was not used yet may be claimed anew: whichever transaction is mined, it pays once, and is credited once;
//   - what our wallets sent and the ledger does not know any more is found by their settlers and imported into
//     quarantine: settled, not delivered, not to be refunded unless the operator says so, because nobody knows
//     whether it was served.
//
// What is looked at, and when, is told at settlement.Survey and by each settler. What nobody finds: payments to an address
// that is no payTo of the configuration any more, and those that a stranger executed; their number is logged.
// What leaves no sign in the wallet's nonces is found at the next start, if it is not older than surveyAtStart, or if
// the operator asks (LookBack).
const (
	// surveyAtStart is how far back an engine looks when it starts, and when it missed a payment. A lost
	// authorization can be executed for as long as authorizations may be valid.
	surveyAtStart = time.Hour
	// surveyRounds is how many of the reconciler's intervals there are between two surveys, and slowestSurvey
	// how long a chain that does not answer is left alone at most.
	surveyRounds  = 4
	slowestSurvey = 2 * time.Minute
	// surveyTimeout bounds one survey; the next one goes on where it was cut short.
	surveyTimeout = 5 * time.Minute
	// importMargin is how many blocks before its own an imported payment's claim is dated: after a reorganisation it may
	// be mined again in an earlier one.
	importMargin = 64
)

// losses is what an engine knows of what its ledger may have lost.
type losses struct {
	mu sync.Mutex
	// wish is how far back somebody wants to be looked, 0 when that was done; wishes counts them.
	wish   time.Duration
	wishes int

	// surveyed are the payees that were looked at since the wish of that number. Only the loop uses it.
	surveyed map[surveyed]int
}

type surveyed struct {
	chainID      uint64
	asset, payTo common.Address
}

func (l *losses) want(back time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wish = max(l.wish, back)
	l.wishes++
}

func (l *losses) wanted() (number int, back time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wishes, l.wish
}

// granted notes that all payees were looked at since the wish of that number.
func (l *losses) granted(number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number == l.wishes {
		l.wish = 0
	}
}

// LookBack makes the engine look once for payments of the time before now that the ledger does not know, and import them
// into quarantine. It returns at once. A store that forgets old payments (see ledger.Books) must not be asked for more than
// a day: what it has forgotten would be taken for lost.
func (e *Engine) LookBack(d time.Duration) {
	e.losses.want(d)
}

// missed looks whether a change failed because the payment, which this engine had read or written before, is not in the ledger
// any more.
func (e *Engine) missed(id string, err error) {
	if !errors.Is(err, ledger.ErrNotFound) {
		return
	}
	e.log(id).Error("the ledger does not know a payment any more: it has lost what it had acknowledged")
	e.LookBack(surveyAtStart)
}

// surveyLoop looks for what the ledger lost: at once, since it may be a restored copy, and then now and then.
func (e *Engine) surveyLoop(ctx context.Context) {
	e.losses.surveyed = make(map[surveyed]int)
	pause := time.Duration(0)
	for {
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		every := surveyRounds * e.current().ReconcileEvery
		if e.survey(ctx) {
			pause = every
		} else {
			pause = min(max(2*pause, every), max(every, slowestSurvey))
		}
	}
}

// survey asks each settler once; it is not ok if one of them could not be asked.
func (e *Engine) survey(ctx context.Context) (ok bool) {
	ok = true
	number, back := e.losses.wanted()
	for _, y := range e.current().Payees {
		s, can := y.Settler.(settlement.Surveyor)
		if !can || ctx.Err() != nil {
			continue
		}
		if err := e.surveyPayee(ctx, y, s, number, back); err != nil && ctx.Err() == nil {
			ok = false
			e.current().Logger.Warn("looking for payments that the ledger lost failed; it is tried again",
				slog.String("network", y.Network.ID), slog.Any("error", err))
		}
	}
	if ok {
		e.losses.granted(number)
	}
	return ok
}

// surveyPayee asks a settler, to look back if nobody has looked since the wish of that number.
func (e *Engine) surveyPayee(ctx context.Context, y *Payee, s settlement.Surveyor, number int, back time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	at := surveyed{y.Network.ChainID, y.Network.Asset.Address, y.PayTo}
	q := settlement.Survey{
		PayTo: y.PayTo,
		Known: func(ctx context.Context, id x402.AuthorizationID) (bool, error) {
			_, err := e.store.ByAuthorization(ctx, id)
			if errors.Is(err, ledger.ErrNotFound) {
				return false, nil
			}
			return err == nil, err
		},
		Found: func(ctx context.Context, f settlement.Find) error { return e.quarantine(ctx, y, f) },
	}
	done, ever := e.losses.surveyed[at]
	if !ever {
		back = max(back, surveyAtStart)
	}
	if !ever || done < number {
		q.Back = back
		var err error
		if q.Wallets, err = e.formerWallets(ctx, y.Network.ChainID); err != nil {
			return err
		}
	}
	sum, err := s.Survey(ctx, q)
	if err != nil {
		return err
	}
	e.losses.surveyed[at] = number
	if sum.Others > 0 {
		e.current().Logger.Warn("payments by authorization reached the seller that the ledger does not know and no wallet of ours made",
			slog.String("network", y.Network.ID), slog.Int("payments", sum.Others),
			slog.Uint64("from_block", sum.From), slog.Uint64("to_block", sum.To))
	}
	return nil
}

// formerWallets are all wallets that the ledger knows: keys change.
func (e *Engine) formerWallets(ctx context.Context, chainID uint64) ([]common.Address, error) {
	list, err := e.store.Wallets(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the ledger's wallets: %w", err)
	}
	var all []common.Address
	for _, w := range list {
		if w.ChainID == chainID {
			all = append(all, w.Address)
		}
	}
	return all, nil
}

// quarantine writes down a payment of which only the money is known.
func (e *Engine) quarantine(ctx context.Context, y *Payee, f settlement.Find) error {
	a := f.Authorization
	id, err := ledger.NewID(randomness, a.From)
	if err != nil {
		return fmt.Errorf("making a payment id: %w", err)
	}
	end := uint64(math.MaxInt64) // as far as every store can count
	if a.ValidBefore.IsUint64() {
		end = min(end, a.ValidBefore.Uint64())
	}
	step := ledger.Change{
		Event: ledger.EventImport, Actor: actorReconciler, Reason: ledger.ReasonQuarantine,
		Transaction: f.Transaction, Block: f.Block, BlockHash: f.BlockHash,
	}
	p, err := e.store.Claim(ctx, ledger.Payment{
		ID: id, AuthorizationID: a.ID(y.Network.ChainID, y.Network.Asset.Address), PayTo: a.To, Amount: a.Value,
		ValidBefore: end, Flow: ledger.FlowUpfront, ClaimBlock: f.Block - min(f.Block, importMargin),
	}, step)
	if errors.Is(err, ledger.ErrExists) {
		return nil // another instance was faster, or its payer came again
	}
	if err != nil {
		return fmt.Errorf("importing a lost payment: %w", err)
	}
	e.happened(&p, []ledger.Change{step})
	e.current().Observe(Observation{Event: "quarantine", Network: y.Network.ID, Outcome: "imported"})
	e.log(p.ID).Error("the ledger had lost a payment that a wallet of ours made; it is in quarantine",
		slog.String("network", y.Network.ID), slog.String("transaction", f.Transaction.Hex()),
		slog.String("amount", a.Value.Dec()),
		slog.String("what_to_do", "find out from the upstream's logs whether the payer was served; if not, let it be refunded"))
	return nil
}
