package management

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/internal/address"
	"github.com/caddy-x402/caddy-x402/ledger"
)

// Limits bound how often the API may be called. They are counted in the ledger, so they hold over all instances.
type Limits struct {
	// Key is how many calls may come with one API key.
	Key Limit
	// Client is how many calls that show a key, whichever, may come from one address, of IPv6 from a /64. It is counted beside Key.
	Client Limit
	// Refused is how many keys that are none may come from one address, of IPv6 from a /64. When it is used up no key from there is looked at.
	Refused Limit
}

// Limit is so many requests in a window of time, which begins with the first of them. The zero Limit bounds nothing.
type Limit struct {
	Requests uint64
	Window   time.Duration
}

// The names by which RateLimit tells of them.
const (
	limitKey     = "key"
	limitClient  = "client"
	limitRefused = "refused"
)

// of is the allowance of who by the limit of a name.
func (l *Limit) of(name, who string) common.Hash {
	return common.HexToHash(hashed("management rate limit", name, fmt.Sprint(l.Requests), l.Window.String(), who))
}

// countCall counts a call by its key, and refuses it where there are too many.
func (a *API) countCall(ctx context.Context, x *exchange) error {
	l := &a.limits.Key
	if l.Requests == 0 || x.caller.local() {
		return nil
	}
	al, drawn, err := a.draw(ctx, x, l, l.of(limitKey, x.caller.key.ID))
	if err != nil {
		return unavailable(err)
	}
	return a.tell(x, limitKey, l, &al, drawn)
}

// countClient counts a call by where it came from, before its key is looked at, and refuses it where there are too many.
func (a *API) countClient(ctx context.Context, x *exchange) error {
	l := &a.limits.Client
	if l.Requests == 0 {
		return nil
	}
	al, drawn, err := a.draw(ctx, x, l, l.of(limitClient, address.Key(a.client(x.r))))
	if err != nil {
		return unavailable(err)
	}
	return a.tell(x, limitClient, l, &al, drawn)
}

// shutOut refuses a call from where too many keys came that are none, before its own is looked at.
func (a *API) shutOut(ctx context.Context, x *exchange) error {
	l := &a.limits.Refused
	if l.Requests == 0 {
		return nil
	}
	al, err := x.shop.Store.Allowance(ctx, l.of(limitRefused, address.Key(a.client(x.r))))
	switch left := al.Left(); {
	case errors.Is(err, ledger.ErrNotFound):
		return nil
	case err != nil:
		return unavailable(err)
	case !left.IsZero():
		return nil
	}
	return a.tell(x, limitRefused, l, &al, false)
}

// refusedKey counts a key that is none, and gives what is told of it. It is counted though its sender may have left.
func (a *API) refusedKey(ctx context.Context, x *exchange, refused *Error) error {
	l := &a.limits.Refused
	if l.Requests == 0 {
		return refused
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	al, drawn, err := a.draw(ctx, x, l, l.of(limitRefused, address.Key(a.client(x.r))))
	if err != nil {
		return unavailable(err)
	}
	if err := a.tell(x, limitRefused, l, &al, drawn); err != nil {
		return err
	}
	return refused
}

// draw takes one call of an allowance.
func (a *API) draw(ctx context.Context, x *exchange, l *Limit, key common.Hash) (al ledger.Allowance, drawn bool, err error) {
	one := *uint256.NewInt(1)
	n, al, err := x.shop.Store.Draw(ctx, ledger.Draw{
		Key: key, Least: one, Want: one, Limit: *uint256.NewInt(l.Requests), Until: x.shop.Store.Now().Add(l.Window),
	})
	return al, !n.IsZero(), err
}

// tell has the answer say how a limit stands (draft-ietf-httpapi-ratelimit-headers), and refuses what is over it.
func (a *API) tell(x *exchange, name string, l *Limit, al *ledger.Allowance, ok bool) error {
	left := al.Left()
	wait := max(al.ExpiresAt.Sub(x.shop.Store.Now()), 0)
	h := x.w.Header()
	h.Add("RateLimit-Policy", fmt.Sprintf(`%q;q=%d;w=%d`, name, l.Requests, int64(l.Window/time.Second)))
	h.Add("RateLimit", fmt.Sprintf(`%q;r=%d;t=%d`, name, left.Uint64(), int64(wait/time.Second)))
	if ok {
		return nil
	}
	a.limited(name)
	words := "more calls came with this API key than are allowed; wait, and make the call again"
	switch name {
	case limitClient:
		words = "more calls came from this address than are allowed; wait, and make the call again"
	case limitRefused:
		words = "too many keys that are none came from this address; wait before the next one"
	}
	e := told(http.StatusTooManyRequests, CodeRateLimit, words, nil)
	e.RetryAfter = int(max((wait+time.Second-1)/time.Second, 1))
	return e
}

// remoteHost is the address that a request came from, where nobody says better.
func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
