package paywall

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// linger is how long an upstream may go on with a paid request whose client has left.
const linger = 2 * time.Minute

// detachUntilDecided gives a request whose upstream call changes something a context that outlives the client:
// the work is paid for, and only its end tells whether it was done. Once the answer is decided on, follow ties
// it to the client again, so that an abandoned stream ends.
func detachUntilDecided(r *http.Request) (_ *http.Request, follow func()) {
	client := r.Context()
	ctx, cancel := context.WithCancel(context.WithoutCancel(client))
	decided := make(chan struct{})
	context.AfterFunc(client, func() {
		t := time.NewTimer(linger)
		defer t.Stop()
		select {
		case <-decided:
		case <-t.C:
		}
		cancel()
	})
	return r.WithContext(ctx), sync.OnceFunc(func() { close(decided) })
}

// detachOnceAnswered gives a request that the upstream may be asked again, and whose answer is to be stored, a context that ends
// with the client's until answered is called: then the answer belongs to the client, and is completed for when that comes back.
// follow ties it to the client again.
func detachOnceAnswered(r *http.Request) (_ *http.Request, answered, follow func()) {
	client := r.Context()
	ctx, cancel := context.WithCancel(context.WithoutCancel(client))
	var begun atomic.Bool
	followed := make(chan struct{})
	context.AfterFunc(client, func() {
		defer cancel()
		if !begun.Load() {
			return
		}
		t := time.NewTimer(linger)
		defer t.Stop()
		select {
		case <-followed:
		case <-t.C:
		}
	})
	return r.WithContext(ctx), func() { begun.Store(true) }, sync.OnceFunc(func() { close(followed) })
}
