package e2e

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Where Caddy's own log encoders would leak, and why every log that writes requests needs x402_redact:
//
//   - Access logs copy the request's header before any handler runs: Payment-Signature and X-Payment stand there in clear.
//     Caddy itself hides Authorization, Proxy-Authorization, Cookie and Set-Cookie only.
//   - The same logs hold the header of the answer: Payment-Response and X-Access-Token are an access token, and
//     Payment-Required has the random value that a client echoes: with it and the calldata that the whole world can
//     read, a payment header could be made again, byte for byte, and it gets the token of a plan.
//   - The debug log of reverse_proxy ("upstream roundtrip") holds X-Payment-Token, the assertion.
//   - Error logs ("http.log.error") hold the request's header like access logs.
//
// What can't be helped: the ledger keeps raw transactions, in which the signature stands, because it must be able to send
// them again. They are public from then on.

const (
	secretRPC   = "9f8e7d6c5b4a-rpc-api-key"
	secretToken = "q7Jx2vN9sLw4TzR8kYb3HcM6pFdG5uAe1XoVtZiK"
)

// leaks are what must not be found anywhere, by name.
type leaks map[string]string

func (l leaks) add(name, secret string) {
	if len(secret) < 16 {
		panic("too short to be searched for: " + name)
	}
	l[name] = secret
}

// payment adds all that a payment header holds.
func (l leaks) payment(t *testing.T, name, header string) {
	t.Helper()
	p, err := x402.DecodePayload(header)
	if err != nil {
		t.Fatal(err)
	}
	l.add(name+": the header", header)
	l.add(name+": the signature", hex.EncodeToString(p.Signature))
	if key, ok := p.ResumeKey(); ok {
		l.add(name+": the echo", key)
	}
}

// find gives the names of the secrets that text holds.
func (l leaks) find(text []byte) (found []string) {
	lower := bytes.ToLower(text)
	for name, secret := range l {
		if bytes.Contains(lower, bytes.ToLower([]byte(secret))) {
			found = append(found, name)
		}
	}
	return found
}

// secretive is a configuration whose secrets come by placeholders, with all logs in files.
func secretive(t *testing.T, r *rig.Rig, rpc, admin, format string) string {
	t.Helper()
	t.Setenv("E2E_RPC", rpc+"/v2/"+secretRPC)
	t.Setenv("E2E_WALLET", hex.EncodeToString(rig.GasKey()))
	t.Setenv("E2E_TOKEN", secretToken)
	text := r.Caddyfile(rig.Options{
		RPC: "{env.E2E_RPC}", Global: "metrics\nservers {\n log_credentials\n }",
		App: "token_key {env.E2E_TOKEN}\n settle_timeout 5s\n interval 1s",
		Site: fmt.Sprintf(`
	log {
		output file %s
		format %s
	}
	x402 $0.01 {
		plan day $0.10 {
			ttl 24h
		}
	}
	x402_service
	reverse_proxy {upstream}
`, filepath.Join(r.Dir, "access.log"), format),
	})
	replace := func(pattern, by string) {
		t.Helper()
		next := regexp.MustCompile(pattern).ReplaceAllLiteralString(text, by)
		if next == text {
			t.Fatalf("%s is not in %s", pattern, text)
		}
		text = next
	}
	replace(`admin off`, "admin "+admin)
	replace(`(?s)log default \{.*?\n\t\}`, fmt.Sprintf("log default {\n level DEBUG\n output file %s\n format %s\n }", filepath.Join(r.Dir, "default.log"), format))
	replace(`wallet 0x[0-9a-f]+`, "wallet {env.E2E_WALLET}")
	return text
}

// No signature, no payment header, no token, no key and no secret of an endpoint's address gets into logs (also at DEBUG),
// the configuration that the admin API shows, metrics, errors or the ledger.
func TestNothingLeaks(t *testing.T) {
	for _, format := range []string{"x402_redact", "json"} {
		t.Run(format, func(t *testing.T) { leak(t, format) })
	}
}

func leak(t *testing.T, format string) {
	fail := false
	r := rig.New(t, rig.Options{Upstream: func(w http.ResponseWriter, req *http.Request) {
		if fail {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		rig.Echo(w, req)
	}})
	rpc, admin := newGatedRPC(t, r.Chain.URL()), rig.FreeAddr(t)
	loadText(t, secretive(t, r, rpc.server.URL, admin, format))

	secrets := leaks{}
	secrets.add("the endpoint's key", secretRPC)
	secrets.add("the wallet's key", hex.EncodeToString(rig.GasKey()))
	secrets.add("the tokens' key", secretToken)
	var told bytes.Buffer // what strangers are told beside what they are to get
	tell := func(a rig.Answer) {
		_, _ = fmt.Fprintln(&told, a.Status, a.Err, a.Body)
	}
	use(t, r, secrets, tell, func(down bool) { rpc.down.Store(down) }, func(f bool) { fail = f })

	b := rig.NewBuyer(t, 1)
	places := map[string][]byte{"what strangers are told": told.Bytes()}
	for _, path := range []string{"/config/", "/config/apps/x402", "/metrics", "/reverse_proxy/upstreams"} {
		a := b.Get("http://" + admin + path)
		if a.Status != http.StatusOK || len(a.Body) == 0 {
			t.Fatalf("%s: %d %v", path, a.Status, a.Err)
		}
		places[path] = []byte(a.Body)
	}
	if !bytes.Contains(places["/metrics"], []byte("caddy_x402_requests_total")) || !bytes.Contains(places["/config/"], []byte("{env.E2E_WALLET}")) {
		t.Error("metrics or configuration are not what they should be")
	}
	logs := map[string]bool{"access.log": true, "default.log": true}
	for _, pattern := range []string{"access.log", "default.log", "ledger.db*"} {
		files, err := filepath.Glob(filepath.Join(r.Dir, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil || len(text) == 0 && !strings.HasSuffix(file, "-wal") {
				t.Fatal(file, err)
			}
			places[filepath.Base(file)] = text
		}
	}
	leaked := 0
	for place, text := range places {
		found := secrets.find(text)
		if format == "json" && logs[place] { // it does leak, or the search finds nothing at all
			leaked += len(found)
			continue
		}
		for _, name := range found {
			t.Errorf("%s holds %s", place, name)
		}
	}
	if format == "json" && leaked < 5 {
		t.Errorf("the plain encoder leaked %d secrets: the requests of this test don't show much", leaked)
	}
	for _, must := range []string{`"msg":"handled request"`, "Payment-Signature", "X-Payment"} {
		if !bytes.Contains(places["access.log"], []byte(must)) {
			t.Errorf("the access log lacks %s", must)
		}
	}
	if !bytes.Contains(places["default.log"], []byte("upstream roundtrip")) {
		t.Error("the default log is not at DEBUG")
	}
}

// use makes the requests that have secrets, and notes them.
func use(t *testing.T, r *rig.Rig, secrets leaks, tell func(rig.Answer), down, fail func(bool)) {
	t.Helper()
	b, holder := rig.NewBuyer(t, 1), rig.NewBuyer(t, 2)
	pay := func(name string, b *rig.Buyer, want int, option int, change ...func(*x402.Authorization)) rig.Answer {
		t.Helper()
		unpaid := b.Get(r.URL("/x"))
		if unpaid.Err != nil {
			t.Fatal(name, unpaid.Err)
		}
		secrets.add(name+": the offer, with what is echoed", unpaid.Header.Get(x402.HeaderRequired))
		header := b.Sign(rig.Offered(t, unpaid), option, change...)
		secrets.payment(t, name, header)
		a := b.Get(r.URL("/x"), x402.HeaderSignature, header)
		if a.Status != want {
			t.Fatalf("%s: %d %v %s", name, a.Status, a.Err, a.Body)
		}
		if want != http.StatusOK {
			tell(a)
		}
		return a
	}
	assertion := func(name string) {
		secrets.add(name+": the assertion", r.Upstream.Last().Header.Get("X-Payment-Token"))
	}

	paid := pay("paid", b, http.StatusOK, 0)
	assertion("paid")
	tell(b.Get(r.URL("/x402/payments/" + paid.Header.Get("X-Payment-Id"))))
	pay("refused", b, http.StatusPaymentRequired, 0, func(a *x402.Authorization) { a.Value.SetOne() })
	v1 := b.SignV1(b.Offer(r.URL("/x")))
	secrets.payment(t, "version 1", v1)
	if a := b.Get(r.URL("/x"), x402.HeaderPaymentV1, v1); a.Status != http.StatusOK {
		t.Fatalf("version 1: %d %s", a.Status, a.Body)
	}
	assertion("version 1")
	tell(b.Get(r.URL("/x"), x402.HeaderPaymentV1, v1)) // a replay

	plan := pay("plan", holder, http.StatusOK, 1)
	assertion("plan")
	token := plan.Header.Get("X-Access-Token")
	secrets.add("the access token", token)
	if a := holder.Get(r.URL("/y"), bearer(token)...); a.Status != http.StatusOK {
		t.Fatalf("by token: %d", a.Status)
	}
	assertion("by token")
	tell(holder.Get(r.URL("/y"), bearer(token[:len(token)-2])...)) // a forged one
	tell(holder.Get(r.URL("/y"), bearer(r.Upstream.Last().Header.Get("X-Payment-Token"))...))

	fail(true)
	pay("upstream fails", b, http.StatusInternalServerError, 0)
	assertion("upstream fails")
	fail(false)
	broken := b.Sign(b.Offer(r.URL("/x")), 0)
	tell(b.Get(r.URL("/x"), x402.HeaderSignature, broken[:len(broken)/2]))

	down(true)
	pay("chain is gone", b, http.StatusServiceUnavailable, 0)
	tell(b.Get(r.URL("/health")))
	down(false)
	r.Chain.Stall()
	pay("chain stalls", b, http.StatusServiceUnavailable, 0)
	down(true)
	tell(b.Get(r.URL("/health")))
	waitFor(t, func() bool { // the reconciler meets the dead chain, too
		text, err := os.ReadFile(filepath.Join(r.Dir, "default.log"))
		return err == nil && bytes.Contains(text, []byte("reconcile"))
	})
	down(false)
	r.Chain.Resume()
}

// Errors of a configuration don't show the secrets in it, whatever is wrong.
func TestConfigurationErrorsShowNoSecrets(t *testing.T) {
	r := rig.New(t, rig.Options{})
	good := secretive(t, r, r.Chain.URL(), rig.FreeAddr(t), "x402_redact")
	secrets := leaks{}
	secrets.add("the endpoint's key", secretRPC)
	secrets.add("the wallet's key", hex.EncodeToString(rig.GasKey()))
	secrets.add("the tokens' key", secretToken)
	for name, env := range map[string][2]string{
		"a wallet's key that is too long":  {"E2E_WALLET", hex.EncodeToString(rig.GasKey()) + "00"},
		"a wallet's key with a space":      {"E2E_WALLET", "0x " + hex.EncodeToString(rig.GasKey())},
		"a wallet's key as an endpoint":    {"E2E_RPC", hex.EncodeToString(rig.GasKey())},
		"an endpoint of another scheme":    {"E2E_RPC", "ftp://x/" + secretRPC},
		"an endpoint that can't be parsed": {"E2E_RPC", "http://x:port/%zz" + secretRPC},
		"a tokens' key that is too weak":   {"E2E_TOKEN", strings.Repeat(secretRPC[:8], 4)},
		"an endpoint's key as tokens' key": {"E2E_TOKEN", secretRPC},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(env[0], env[1])
			err := rig.LoadText(good)
			if err == nil {
				t.Fatal("the configuration was accepted")
			}
			if found := secrets.find([]byte(err.Error())); len(found) > 0 {
				t.Errorf("the error shows %v: %v", found, err)
			}
		})
	}
	if text, err := io.ReadAll(strings.NewReader(good)); err != nil || len(secrets.find(text)) > 0 {
		t.Error("the configuration itself holds secrets, so nothing is shown")
	}
}
