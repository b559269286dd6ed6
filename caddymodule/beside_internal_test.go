package caddymodule

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// What is done beside requests begins when it should, goes on, and has ended when stop returns. What was never begun is not ended.
func TestBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b beside
		if b.stop() {
			t.Error("what was not begun is ended")
		}
		ctx, over := context.WithCancel(t.Context())
		over() // as when Caddy cleans up: what was begun goes on until it is told
		began, at := time.Now(), []time.Duration(nil)
		b.start(&App{ctx: caddy.Context{Context: ctx}}, time.Second, time.Hour, func(context.Context) { at = append(at, time.Since(began)) })
		time.Sleep(2*time.Hour + 2*time.Second)
		if !b.stop() || b.stop() {
			t.Error("it is not ended once")
		}
		if want := []time.Duration{time.Second, time.Hour + time.Second, 2*time.Hour + time.Second}; !slices.Equal(at, want) {
			t.Errorf("done at %v, want %v", at, want)
		}
	})
}
