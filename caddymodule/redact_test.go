package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-x402/caddy-x402/test/service"
)

const leak = "eyJ4NDAyVmVyc2lvbiI6secret"

// secretNames are headers that must never be written, in spellings that reach an upstream as the same one.
var secretNames = []string{
	"Payment-Signature", "PAYMENT-SIGNATURE", "payment_signature", "Payment_Signature", "Payment-Response", "X-Payment", "x-payment",
	"X_Payment", "X_PAYMENT", "X-Payment_Response", "X-Payment-Response", "X-Payment-Token", "X_Payment_Token", "X-Access-Token",
	"x_access_token", "X-Api-Key", "x_api_key", "Authorization", "Sign-In-With-X", "Payment-Required", "PAYMENT_REQUIRED", "Cookie", "Set-Cookie",
}

// plainNames are headers that must stay readable.
var plainNames = []string{"Payment-Requirement", "X-Payment-Id", "X-Payment-Status", "Accept", "X-Paymentx", "X-Pay", "Payment"}

// provisioned is the encoder as a configuration gives it.
func provisioned(t *testing.T, caddyfileText string) *RedactEncoder {
	t.Helper()
	var e RedactEncoder
	if err := e.UnmarshalCaddyfile(caddyfile.NewTestDispenser(caddyfileText)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	if err := e.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	return &e
}

func secretHeaders() http.Header {
	h := make(http.Header)
	for _, name := range secretNames {
		h[name] = []string{leak, leak + "2"}
	}
	for _, name := range plainNames {
		h[name] = []string{"plain " + name}
	}
	return h
}

// Whatever way a header finds into an entry, its secret does not get out, and what is no secret does.
func TestRedactFields(t *testing.T) {
	h := secretHeaders()
	loggable := caddyhttp.LoggableHTTPHeader{Header: h, ShouldLogCredentials: true}
	req := httptest.NewRequest(http.MethodGet, "/x?a=b", nil)
	req.Header = h
	ways := map[string]func(*zap.Logger) *zap.Logger{
		"a request": func(l *zap.Logger) *zap.Logger {
			return l.With(zap.Object("request", caddyhttp.LoggableHTTPRequest{Request: req, ShouldLogCredentials: true}))
		},
		"headers":         func(l *zap.Logger) *zap.Logger { return l.With(zap.Object("resp_headers", loggable)) },
		"headers in line": func(l *zap.Logger) *zap.Logger { return l.With(zap.Inline(loggable)) },
		"a namespace":     func(l *zap.Logger) *zap.Logger { return l.With(zap.Namespace("deep"), zap.Object("headers", loggable)) },
		"an array of them": func(l *zap.Logger) *zap.Logger {
			return l.With(zap.Objects("list", []zapcore.ObjectMarshaler{loggable}))
		},
		"a reflected header": func(l *zap.Logger) *zap.Logger { return l.With(zap.Any("headers", h)) },
		"a reflected map":    func(l *zap.Logger) *zap.Logger { return l.With(zap.Any("headers", map[string][]string(h))) },
		"a map in a map":     func(l *zap.Logger) *zap.Logger { return l.With(zap.Any("all", map[string]any{"headers": h})) },
	}
	for _, format := range []string{"x402_redact", "x402_redact {\n wrap json\n}", "x402_redact {\n wrap console\n}", "x402_redact {\n wrap filter {\n  nothing delete\n }\n}"} {
		e := provisioned(t, format)
		for name, way := range ways {
			for _, late := range []bool{false, true} {
				var out bytes.Buffer
				l := zap.New(zapcore.NewCore(e, zapcore.AddSync(&out), zap.DebugLevel))
				if late { // the fields come with the entry
					core := &lateCore{Core: l.Core()}
					way(zap.New(core)).Info("x")
					l.Info("x", core.fields...)
				} else {
					way(l).Info("x")
				}
				if strings.Contains(out.String(), leak) {
					t.Errorf("%s, %s, late %v: leaks %s", format, name, late, out.String())
				}
				for _, plain := range plainNames {
					if !strings.Contains(out.String(), "plain "+plain) {
						t.Errorf("%s, %s, late %v: lost %s in %s", format, name, late, plain, out.String())
					}
				}
				if !strings.Contains(out.String(), "REDACTED") {
					t.Errorf("%s, %s, late %v: does not say what is missing", format, name, late)
				}
			}
		}
	}
}

// lateCore keeps the fields that a logger was made with.
type lateCore struct {
	zapcore.Core
	fields []zapcore.Field
}

func (c *lateCore) With(f []zapcore.Field) zapcore.Core { c.fields = append(c.fields, f...); return c }

// Single values of a field that is called like a secret header are left out, of whatever kind they are.
func TestRedactValues(t *testing.T) {
	e := provisioned(t, "x402_redact")
	fields := []zap.Field{
		zap.String("authorization", leak), zap.ByteString("X-Payment", []byte(leak)), zap.Binary("payment_signature", []byte(leak)),
		zap.Strings("x-access-token", []string{leak}), zap.NamedError("Payment-Response", errors.New(leak)),
		zap.Stringer("X-Payment-Token", bytes.NewBufferString(leak)), zap.Any("X-Payment-Response", struct{ A string }{leak}),
		zap.Any("m", map[string]string{"x_payment": leak}), zap.Int("x-payment", 7), zap.String("safe", "sound"),
	}
	var out bytes.Buffer
	l := zap.New(zapcore.NewCore(e, zapcore.AddSync(&out), zap.DebugLevel))
	l.Info("x", fields...)
	l.With(fields...).Info("x")
	for line := range strings.Lines(out.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, leak) || strings.Contains(line, "ZXlKNE") || entry["safe"] != "sound" || entry["authorization"] != "REDACTED" {
			t.Errorf("wrote %s", line)
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d entries", n)
	}
}

// A logger's own fields stay with it: one that is made of another does not write into that one's entries.
func TestRedactClone(t *testing.T) {
	e := provisioned(t, "x402_redact")
	var out bytes.Buffer
	parent := zap.New(zapcore.NewCore(e, zapcore.AddSync(&out), zap.DebugLevel))
	parent.With(zap.String("child", "yes")).Info("one")
	parent.Info("two")
	if got := strings.Count(out.String(), "child"); got != 1 {
		t.Errorf("wrote %s", out.String())
	}
}

func TestRedactCaddyfile(t *testing.T) {
	for _, tc := range []struct{ text, want, err string }{
		{"x402_redact", `{}`, ""},
		{"x402_redact {\n}", `{}`, ""},
		{"x402_redact {\n wrap console\n}", `{"wrap":{"format":"console"}}`, ""},
		{"x402_redact {\n wrap filter {\n  wrap console\n  a delete\n }\n}", `{"wrap":{"fields":{"a":{"filter":"delete"}},"format":"filter","wrap":{"format":"console"}}}`, ""},
		{"x402_redact console", "", "wrong argument count"},
		{"x402_redact {\n wrap\n}", "", "wrong argument count"},
		{"x402_redact {\n wrap json\n wrap console\n}", "", "twice"},
		{"x402_redact {\n fields\n}", "", "unrecognized subdirective"},
		{"x402_redact {\n wrap nonesuch\n}", "", "nonesuch"},
	} {
		var e RedactEncoder
		err := e.UnmarshalCaddyfile(caddyfile.NewTestDispenser(tc.text))
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%q: error %v, want %q", tc.text, err, tc.err)
			}
			continue
		}
		got, jsonErr := json.Marshal(e)
		if err != nil || jsonErr != nil || string(got) != tc.want {
			t.Errorf("%q: %s, %v; want %s", tc.text, got, err, tc.want)
		}
	}
}

// A real Caddy with the encoder in its logs writes no secret: not in access logs, not in error logs, and not in the debug
// logs of reverse_proxy, of requests or of responses.
func TestRedactInCaddy(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, values := range secretHeaders() {
			if name != "Authorization" {
				w.Header()[name] = values
			}
		}
		w.WriteHeader(http.StatusCreated)
	}))
	defer upstream.Close()
	dir := t.TempDir()
	port, err := service.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	config := fmt.Sprintf(`{
		admin off
		persist_config off
		storage file_system %[1]s
		log {
			output file %[1]s/default.log
			format x402_redact
			level DEBUG
		}
		servers {
			log_credentials
		}
	}
	http://%[2]s {
		log {
			output file %[1]s/access.log
			format x402_redact
		}
		error /fail "no" 500
		reverse_proxy %[3]s
	}`, dir, addr, strings.TrimPrefix(upstream.URL, "http://"))
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(adapted, true); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			if err := caddy.Stop(); err != nil {
				t.Error(err)
			}
		}
	}
	defer stop()
	for _, path := range []string{"/x", "/fail"} {
		rawRequest(t, addr, path)
	}
	stop()

	access, general := readLog(t, filepath.Join(dir, "access.log")), readLog(t, filepath.Join(dir, "default.log"))
	for name, log := range map[string]string{"access log": access, "default log": general} {
		if strings.Contains(log, leak) {
			t.Errorf("%s leaks:\n%s", name, log)
		}
		for _, want := range []string{`"X_payment":["REDACTED"]`, `"X-Payment":["REDACTED"]`, `"Authorization":["REDACTED"]`, `"Accept":["plain"]`} {
			if !strings.Contains(log, want) {
				t.Errorf("%s has no %s:\n%s", name, want, log)
			}
		}
	}
	if !strings.Contains(access, `"status":201`) || !strings.Contains(access, `"resp_headers":{`) || !strings.Contains(access, "plain Payment-Requirement") {
		t.Errorf("access log:\n%s", access)
	}
	for _, want := range []string{`"upstream roundtrip"`, `"logger":"http.log.error`} {
		if !strings.Contains(general, want) {
			t.Errorf("default log has no %s:\n%s", want, general)
		}
	}
}

// rawRequest sends header names as they are; net/http would write them its own way.
func rawRequest(t *testing.T, addr, path string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var req strings.Builder
	fmt.Fprintf(&req, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nAccept: plain\r\n", path, addr)
	for _, name := range secretNames {
		fmt.Fprintf(&req, "%s: %s\r\n", name, leak)
	}
	if _, err := io.WriteString(conn, req.String()+"\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 ")) {
		t.Fatalf("%s: answer %q, %v", path, answer, err)
	}
}

func readLog(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
