package caddymodule

import (
	"context"
	"log/slog"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap/exp/zapslog"
)

// liveLog writes to the log of the configuration that is running, whichever that is: for what outlives configurations.
type liveLog struct {
	with func(slog.Handler) slog.Handler // what loggers made of it add; nil: nothing
}

func localLogger() *slog.Logger { return slog.New(liveLog{}) }

func (l liveLog) handler() slog.Handler {
	var h slog.Handler = zapslog.NewHandler(caddy.Log().Core(), zapslog.WithName("admin.api.x402"))
	if l.with != nil {
		h = l.with(h)
	}
	return h
}

// Enabled implements slog.Handler.
func (l liveLog) Enabled(ctx context.Context, level slog.Level) bool {
	return l.handler().Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (l liveLog) Handle(ctx context.Context, r slog.Record) error { return l.handler().Handle(ctx, r) }

// WithAttrs implements slog.Handler.
func (l liveLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return l.and(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (l liveLog) WithGroup(name string) slog.Handler {
	return l.and(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (l liveLog) and(f func(slog.Handler) slog.Handler) liveLog {
	before := l.with
	return liveLog{func(h slog.Handler) slog.Handler {
		if before != nil {
			h = before(h)
		}
		return f(h)
	}}
}
