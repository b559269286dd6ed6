package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/refund"
	"github.com/caddy-x402/caddy-x402/settlement/signer"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Refunds say how what was paid and not delivered goes back: just what was received, to who paid it, once.
type Refunds struct {
	// The refund wallet, if its key is kept elsewhere, instead of `refund` with a key.
	SignerRaw json.RawMessage `json:"signer,omitempty" caddy:"namespace=x402.signers inline_key=signer"`

	// How often refunds are looked after; all that are due then go out together. Default: 60s.
	Interval caddy.Duration `json:"interval,omitempty"`

	// How long after its settlement a payment goes back at the earliest. Default: the app's `min_age`, which is how long what was not
	// collected waits for its payer.
	MinAge caddy.Duration `json:"min_age,omitempty"`

	// How many refunds are begun in an interval by each instance. Default: 50.
	Batch int `json:"batch,omitempty"`

	// What goes back by itself at most for one payment, such as `5.00`: a dearer one is REFUND_FAILED, for the operator to decide. Default:
	// there is no bound.
	MaxPayment string `json:"max_payment,omitempty"`

	// What goes back at most in a day (UTC), over all instances, of each network's asset: the rest waits for the next day. Default: there
	// is no bound.
	MaxDay string `json:"max_day,omitempty"`
}

// saysRefund reports whether somebody has thought about payments that can't be delivered.
func (a *App) saysRefund() bool {
	return a.Refund != "" || a.refundWallet != nil || a.Refunds != nil && a.Refunds.SignerRaw != nil // which is gone once it was loaded
}

// provisionRefunds makes the refund wallet, and opens nothing. Whether one is needed is for each handler to say: see errNoRefund.
func (a *App) provisionRefunds(ctx caddy.Context) error {
	if err := a.checkRefunds(); err != nil {
		return err
	}
	if !a.saysRefund() || a.Refund == refundOff || len(a.Networks) == 0 {
		return nil
	}
	w := &refundWallet{taken: a.takenAddresses}
	if a.Refund != "" {
		key, err := privateKey("the refund wallet's key", a.Refund, a.localOnly())
		if err != nil {
			return err
		}
		if err := a.mayPayRefunds(crypto.PubkeyToAddress(key.PublicKey)); err != nil {
			return err
		}
		local, err := signer.NewLocal(key)
		if err != nil {
			return fmt.Errorf("the refund wallet's key: %w", err)
		}
		w.open = func(context.Context) (refund.Signer, error) { return local, nil }
	} else {
		loaded, err := ctx.LoadModule(a.Refunds, "SignerRaw")
		if err != nil {
			return fmt.Errorf("loading the refund wallet's signer: %w", err)
		}
		m, ok := loaded.(SignerModule)
		if !ok {
			return fmt.Errorf("the refund wallet's signer is a %T, which is none", loaded)
		}
		if _, err := m.Join(SignerContext{Local: a.localOnly()}); err != nil {
			return fmt.Errorf("the refund wallet's signer: %w", err)
		}
		w.open = func(ctx context.Context) (refund.Signer, error) { return m.Open(ctx) }
	}
	a.refundWallet = w
	return a.limitRefunds()
}

func (a *App) checkRefunds() error {
	r := a.Refunds
	switch {
	case r == nil:
		return nil
	case a.Refund == refundOff:
		return errors.New("refunds are off, which leaves nothing to configure about them")
	case a.Refund == "" && r.SignerRaw == nil:
		return errors.New("the refund wallet is missing: write `refund {env.REFUND_WALLET_PRIVATE_KEY}`, or `signer` into its block")
	case a.Refund != "" && r.SignerRaw != nil:
		return errors.New("refund has a key and a signer; write one of them")
	case r.Interval < 0 || r.Interval > 0 && time.Duration(r.Interval) < time.Second:
		return errors.New("refund: interval must be a second or more")
	case r.MinAge < 0:
		return errors.New("refund: min_age must be more than zero")
	case r.Batch < 0 || r.Batch > mostRefunds:
		return fmt.Errorf("refund: batch is %d; write a number from 1 to %d", r.Batch, mostRefunds)
	}
	return nil
}

// mostRefunds bounds how many refunds go out together.
const mostRefunds = 1000

// limitRefunds gives each network its bounds, in the atomic units of its asset.
func (a *App) limitRefunds() error {
	r := a.Refunds
	if r == nil {
		return nil
	}
	for _, y := range a.payees {
		for _, l := range []struct {
			name, value string
			into        *uint256.Int
		}{{"max_payment", r.MaxPayment, &y.Refund.PerPayment}, {"max_day", r.MaxDay, &y.Refund.PerDay}} {
			if l.value == "" {
				continue
			}
			n, err := x402.ParseAmount(l.value, y.Network.Asset.Decimals)
			if err == nil && n.IsZero() {
				err = errors.New("nothing could go back; write `refunds off` for that")
			}
			if err != nil {
				return fmt.Errorf("refund: %s on %s: %w", l.name, y.Network.ID, err)
			}
			*l.into = n
		}
		if l := &y.Refund; !l.PerDay.IsZero() && l.PerPayment.Gt(&l.PerDay) {
			return errors.New("refund: max_payment is more than max_day: a payment between them could never go back")
		}
	}
	return nil
}

// mayPayRefunds refuses a refund wallet that is something else as well. Whoever gets at the keys of the gas wallets must not get at this
// money, and what is earned is not what is paid back from: it would be told for ever that the refund wallet has enough.
func (a *App) mayPayRefunds(wallet common.Address) error {
	if what := a.takenAddresses(wallet); what != "" {
		return fmt.Errorf("the refund wallet %s is %s as well; give refunds a wallet of their own, with as much in it as may have to go back", wallet, what)
	}
	return nil
}

// takenAddresses says what else an address is; empty if it is nothing.
func (a *App) takenAddresses(wallet common.Address) string {
	for _, y := range a.payees {
		if y.PayTo == wallet {
			return "the pay_to of " + y.Network.ID
		}
		if o, ok := y.Settler.(settlement.Owner); ok && slices.Contains(o.Wallets(), wallet) {
			return "a gas wallet of " + y.Network.ID
		}
	}
	return ""
}

// refundWallet is what signs refunds. It is opened when it is first needed.
type refundWallet struct {
	open  func(context.Context) (refund.Signer, error)
	taken func(common.Address) string

	mu     sync.Mutex
	signer refund.Signer
	closed bool
}

// get gives the signer, if it may be used: gas wallets whose keys are kept elsewhere are known later than this one.
func (w *refundWallet) get(ctx context.Context) (refund.Signer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, errors.New("the configuration is not in force any more")
	}
	if w.signer == nil {
		s, err := w.open(ctx)
		if err != nil {
			return nil, err
		}
		w.signer = s
	}
	if what := w.taken(w.signer.Address()); what != "" {
		return nil, fmt.Errorf("the refund wallet %s is %s as well, so no refund is paid from it", w.signer.Address(), what)
	}
	return w.signer, nil
}

func (w *refundWallet) close() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if c, ok := w.signer.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// refundSettings are those of this configuration for the engine; nil where refunds are off.
func (a *App) refundSettings() *paywall.Refunds {
	if a.refundWallet == nil {
		return nil
	}
	s := &paywall.Refunds{Signer: a.refundWallet.get, MinAge: time.Duration(a.MinAge)}
	if r := a.Refunds; r != nil {
		s.Interval, s.Batch = time.Duration(r.Interval), r.Batch
		if r.MinAge > 0 {
			s.MinAge = time.Duration(r.MinAge)
		}
	}
	return s
}

// parseRefunds reads
//
//	refund [<key>] {
//		signer      <module> [<args...>] { ... }
//		interval    <duration>
//		min_age     <duration>
//		batch       <refunds>
//		max_payment <amount>
//		max_day     <amount>
//	}
func parseRefunds(d *caddyfile.Dispenser, a *App) error {
	if d.NextArg() {
		a.Refund = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	r := new(Refunds)
	if err := subdirectives(d, "refund", map[string]func() error{
		"signer": func() (err error) {
			r.SignerRaw, err = ParseSigner(d)
			return err
		},
		"interval": duration(d, &r.Interval),
		"min_age":  duration(d, &r.MinAge),
		"batch": func() error {
			var s string
			if err := one(d, &s)(); err != nil {
				return err
			}
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 {
				return d.Errf("batch %s: write a whole number from 1", s)
			}
			r.Batch = n
			return nil
		},
		"max_payment": one(d, &r.MaxPayment),
		"max_day":     one(d, &r.MaxDay),
	}); err != nil {
		return err
	}
	if r.SignerRaw == nil && a.Refund == "" {
		return d.Err("refund needs the key of the wallet that pays refunds, such as {env.REFUND_WALLET_PRIVATE_KEY}, or a signer in its block; or write `refunds off`")
	}
	if r.SignerRaw != nil || *r.plain() != (plainRefunds{}) {
		a.Refunds = r
	}
	return nil
}

// plainRefunds is what can be compared of Refunds.
type plainRefunds struct {
	interval, minAge   caddy.Duration
	batch              int
	maxPayment, maxDay string
}

func (r *Refunds) plain() *plainRefunds {
	return &plainRefunds{r.Interval, r.MinAge, r.Batch, r.MaxPayment, r.MaxDay}
}

// parseRefundOn reads which answers are paid back.
func parseRefundOn(d *caddyfile.Dispenser, into *[]string) func() error {
	return func() error {
		*into = d.RemainingArgs()
		if len(*into) == 0 {
			return d.ArgErr()
		}
		_, err := refundOn(*into)
		if err != nil {
			return d.WrapErr(err)
		}
		return nil
	}
}

// refundOn makes a route's policy of words; nil: they say nothing.
func refundOn(words []string) (*paywall.RefundOn, error) {
	if len(words) == 0 {
		return nil, nil
	}
	o := new(paywall.RefundOn)
	for _, w := range words {
		switch w {
		case "transport": // always
		case "5xx":
			o.ServerErrors = true
		case "4xx":
			o.ClientErrors = true
		default:
			n, err := strconv.Atoi(w)
			if err != nil || n < 400 || n > 599 || len(w) != 3 {
				return nil, fmt.Errorf("refund_on %q is not known; write some of %s", w, strings.Join([]string{"transport", "5xx", "4xx"}, ", ")+", or a status such as 404")
			}
			o.Statuses = append(o.Statuses, n)
		}
	}
	return o, nil
}
