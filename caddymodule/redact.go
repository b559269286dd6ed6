package caddymodule

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/logging"
	"go.uber.org/zap"
	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"
)

func init() {
	caddy.RegisterModule(RedactEncoder{})
}

// RedactEncoder is a log encoder that keeps payments and tokens out of the logs: the values of the headers
// that carry them are replaced by `REDACTED`, and everything else goes unchanged to the encoder that it wraps.
//
// A signed payment can be used by whoever reads it until it was settled, and an access token for as long as
// it is good for; Caddy's access logs hold the headers of requests as they came, before any handler could remove
// them. So use this encoder in every log that writes requests: in each site's `log`, and in the global `log` option, for
// error logs and the debug logs of reverse_proxy.
//
// Redacted are `Payment-Signature`, `Payment-Response` (a receipt may hold an access token), `X-Payment`,
// `X-Payment-Response`, `X-Payment-Token`, `X-Access-Token`, `X-Api-Key`, `Sign-In-With-X`, `Authorization`, `Cookie` and `Set-Cookie` (which
// may hold an access token; also with `log_credentials`) and `Payment-Required` (with the random value of an offer, and a signature that is on chain, its
// payer's header can be made again), of requests and of responses, at any depth of an entry, in lower and upper case
// and with `_` for `-`.
//
// Caddyfile:
//
//	log {
//		format x402_redact
//	}
//	log {
//		format x402_redact {
//			wrap console
//		}
//	}
type RedactEncoder struct {
	// The encoder that writes the entries. Default: `json`, or `console` where the log goes to a terminal.
	WrappedRaw json.RawMessage `json:"wrap,omitempty" caddy:"namespace=caddy.logging.encoders inline_key=format"`

	zapcore.Encoder  `json:"-"`
	wrappedIsDefault bool
	ctx              caddy.Context
}

// CaddyModule returns the Caddy module information.
func (RedactEncoder) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.logging.encoders.x402_redact",
		New: func() caddy.Module { return new(RedactEncoder) },
	}
}

// Provision loads the wrapped encoder.
func (e *RedactEncoder) Provision(ctx caddy.Context) error {
	e.ctx = ctx
	if e.WrappedRaw == nil {
		e.wrappedIsDefault = true
		j := new(logging.JSONEncoder)
		e.Encoder = j
		return j.Provision(ctx)
	}
	module, err := ctx.LoadModule(e, "WrappedRaw")
	if err != nil {
		return fmt.Errorf("loading the wrapped encoder: %w", err)
	}
	encoder, ok := module.(zapcore.Encoder)
	if !ok {
		return fmt.Errorf("loading the wrapped encoder: %T is no encoder", module)
	}
	e.Encoder = encoder
	return nil
}

// ConfigureDefaultFormat makes the default what Caddy's own would be: console on a terminal.
func (e *RedactEncoder) ConfigureDefaultFormat(wo caddy.WriterOpener) error {
	if !e.wrappedIsDefault {
		if inner, ok := e.Encoder.(caddy.ConfiguresFormatterDefault); ok {
			return inner.ConfigureDefaultFormat(wo)
		}
		return nil
	}
	if caddy.IsWriterStandardStream(wo) && term.IsTerminal(int(os.Stderr.Fd())) {
		console := new(logging.ConsoleEncoder)
		e.Encoder = console
		return console.Provision(e.ctx)
	}
	return nil
}

// UnmarshalCaddyfile sets up the encoder. Syntax:
//
//	x402_redact {
//		wrap <encoder>
//	}
func (e *RedactEncoder) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // encoder name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		if d.Val() != "wrap" {
			return d.Errf("unrecognized subdirective %q; write: wrap <encoder>", d.Val())
		}
		if e.WrappedRaw != nil {
			return d.Err("wrap is given twice; one encoder writes the entries")
		}
		if !d.NextArg() {
			return d.ArgErr()
		}
		name := d.Val()
		module, err := caddyfile.UnmarshalModule(d, "caddy.logging.encoders."+name)
		if err != nil {
			return err
		}
		if _, ok := module.(zapcore.Encoder); !ok {
			return d.Errf("%s (%T) is no log encoder", name, module)
		}
		e.WrappedRaw = caddyconfig.JSONModuleObject(module, "format", name, nil)
	}
	return nil
}

// Clone is what loggers with fields of their own use.
func (e RedactEncoder) Clone() zapcore.Encoder {
	return RedactEncoder{Encoder: e.Encoder.Clone()}
}

// EncodeEntry writes an entry without the secrets in its fields.
func (e RedactEncoder) EncodeEntry(entry zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	clean := make([]zapcore.Field, len(fields))
	for i, f := range fields {
		clean[i] = redactField(f)
	}
	return e.Encoder.EncodeEntry(entry, clean)
}

// AddArray redacts a header's values.
func (e RedactEncoder) AddArray(key string, v zapcore.ArrayMarshaler) error {
	return redactObject{e.Encoder}.AddArray(key, v)
}

// AddObject redacts in an object.
func (e RedactEncoder) AddObject(key string, v zapcore.ObjectMarshaler) error {
	return redactObject{e.Encoder}.AddObject(key, v)
}

// AddReflected redacts in what encoders write as they find it.
func (e RedactEncoder) AddReflected(key string, v any) error {
	return redactObject{e.Encoder}.AddReflected(key, v)
}

// AddString redacts a single value.
func (e RedactEncoder) AddString(key, v string) { redactObject{e.Encoder}.AddString(key, v) }

// AddByteString redacts a single value.
func (e RedactEncoder) AddByteString(key string, v []byte) {
	redactObject{e.Encoder}.AddByteString(key, v)
}

// AddBinary redacts a single value.
func (e RedactEncoder) AddBinary(key string, v []byte) { redactObject{e.Encoder}.AddBinary(key, v) }

// redactField is f without secrets.
func redactField(f zapcore.Field) zapcore.Field {
	switch f.Type {
	case zapcore.ObjectMarshalerType, zapcore.InlineMarshalerType:
		if m, ok := f.Interface.(zapcore.ObjectMarshaler); ok {
			f.Interface = redactObjectMarshaler{m}
		}
	case zapcore.ArrayMarshalerType:
		if m, ok := f.Interface.(zapcore.ArrayMarshaler); ok {
			f.Interface = redactArrayOf(f.Key, m)
		}
	case zapcore.ReflectType:
		f.Interface = redactReflected(f.Key, f.Interface)
	case zapcore.StringType, zapcore.ByteStringType, zapcore.BinaryType, zapcore.StringerType, zapcore.ErrorType:
		if secretHeader(f.Key) {
			return zap.String(f.Key, redactedValue)
		}
	default: // numbers, times and the like hold no secrets
	}
	return f
}

// Interface guards
var (
	_ zapcore.Encoder                  = (*RedactEncoder)(nil)
	_ caddy.Provisioner                = (*RedactEncoder)(nil)
	_ caddyfile.Unmarshaler            = (*RedactEncoder)(nil)
	_ caddy.ConfiguresFormatterDefault = (*RedactEncoder)(nil)
)
