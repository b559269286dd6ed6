package caddymodule

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-x402/caddy-x402/management"
)

// Operations of the management API that the admin endpoint and the commands have ways of their own to; the operators' audit calls them the same.
const (
	deedSettle = "settlePayment"
	deedRefund = "refundPayment"
	deedRetry  = "retryRefund"
	deedRevoke = "revokeToken"
	deedRotate = "rotateTokenKey"
	deedRetire = "retireTokenKey"
)

// audited has something changed by who sits at the machine, and the operators' audit say so.
func audited[T any](ctx context.Context, d *desk, operation, target string, do func(*management.Shop) (T, error)) (out T, err error) {
	log := slog.New(slog.DiscardHandler) // a command says itself what it has done
	if d.engine != nil {
		log = localLogger()
	}
	s := d.shop()
	err = s.Audited(ctx, log, management.Local(operation, target), func() (string, error) {
		var err error
		out, err = do(s)
		return "", err
	})
	return out, err
}

// deedTimeout is how long a change of the keys waits for the audit.
const deedTimeout = 5 * time.Second

var errLedgerAway = errors.New("the ledger is not open")

// auditKeys is audited for the keys of tokens. They are not in the ledger, and can be changed while it is away: then the log alone says so.
func (a *App) auditKeys(ctx context.Context, operation, target string, do func() error) {
	unaudited := func(err error) {
		a.log.Warn("the keys of tokens are changed, and the operators' audit can't be told", zap.String("operation", operation), zap.Error(err))
		_ = do() // who gave it hears of it
	}
	if a.engine.value.ready() == nil {
		unaudited(errLedgerAway)
		return
	}
	e, release, err := a.acquire()
	if err != nil {
		unaudited(err)
		return
	}
	defer release()
	s := management.Shop{Store: e.Store(), Networks: networksOf(a.payees)}
	begun := false
	ctx, cancel := context.WithTimeout(ctx, deedTimeout)
	defer cancel()
	err = s.Audited(ctx, a.slog, management.Local(operation, target), func() (string, error) {
		begun = true
		return "", do()
	})
	if !begun {
		unaudited(err)
	}
}
