package caddymodule

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"
	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/x402"
)

const (
	shopPayTo       = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
	shopTransaction = "0xabababababababababababababababababababababababababababababababab"
	payerKey        = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
)

// shop sells what its handler serves, by the protocol's own rules, each authorization once.
type shop struct {
	*httptest.Server
	t       *testing.T
	network x402.Network
	offers  []x402.Requirements
	v1      bool
	// before answers a payment instead, if it says so.
	before http.HandlerFunc
	serve  http.HandlerFunc

	mu       sync.Mutex
	used     map[common.Hash]bool
	payments []string
	last     *http.Request
	body     string
}

func newShop(t *testing.T, network string) *shop {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	n, ok := x402.LookupNetwork(network)
	if !ok {
		t.Fatalf("network %s", network)
	}
	s := &shop{t: t, network: n, used: make(map[common.Hash]bool)}
	s.offers = []x402.Requirements{s.price(10_000, "")}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *shop) price(amount uint64, plan string) x402.Requirements {
	return x402.NewRequirements(s.network, common.HexToAddress(shopPayTo), uint256.NewInt(amount), time.Minute, x402.FlowUpfront, plan)
}

func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	value := r.Header.Get(x402.HeaderSignature) + r.Header.Get(x402.HeaderPaymentV1)
	s.mu.Lock()
	s.last, s.body = r, string(body)
	if value != "" {
		s.payments = append(s.payments, value)
	}
	before := s.before
	s.mu.Unlock()
	if value == "" || before != nil {
		if before != nil && value != "" {
			before(w, r)
			return
		}
		s.demand(w, "Payment required")
		return
	}
	p, err := s.take(value)
	if err != nil {
		s.demand(w, string(x402.ReasonOf(err)))
		return
	}
	header := map[int]string{1: x402.HeaderResponseV1, 2: x402.HeaderResponse}[p.Version]
	receipt, _ := x402.EncodeHeader(x402.SettlementResponse{Success: true, Transaction: shopTransaction, Network: p.Network})
	w.Header().Set(header, receipt)
	w.Header().Set("X-Payment-Id", "pay_1")
	if s.serve != nil {
		s.serve(w, r)
		return
	}
	_, _ = io.WriteString(w, "sunny")
}

func (s *shop) demand(w http.ResponseWriter, text string) {
	key, _ := x402.NewResumeKey(rand.Reader)
	offer := x402.NewOffer(s.offers, x402.ResourceInfo{URL: s.URL, Description: "weather\x1b[2J"}, nil, text, key)
	header, err := offer.Header()
	if err != nil {
		s.t.Error(err)
	}
	body, err := offer.Body()
	if err != nil {
		s.t.Error(err)
	}
	if !s.v1 {
		w.Header().Set(x402.HeaderRequired, header)
	}
	w.WriteHeader(http.StatusPaymentRequired)
	_, _ = w.Write(body)
}

func (s *shop) take(value string) (*x402.Payload, error) {
	p, err := x402.DecodePayload(value)
	if err != nil {
		return nil, err
	}
	i, err := x402.Select(s.offers, p)
	if err != nil {
		return nil, err
	}
	amount, _ := x402.ParseAtomic(s.offers[i].Amount)
	terms := x402.Terms{Network: s.network, PayTo: common.HexToAddress(shopPayTo), Amount: amount, MaxValidity: time.Hour}
	unproven, err := p.Verify(terms, p.Identify(s.network.Domain().Separator()), time.Now())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if unproven || s.used[p.Authorization.Nonce] {
		return nil, x402.Refuse(x402.ReasonNonceUsed, "used or not signed by the payer")
	}
	s.used[p.Authorization.Nonce] = true
	return p, nil
}

func (s *shop) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.payments...)
}

func (s *shop) instead(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = h
}

// ran is what a run of the command left behind.
type ran struct {
	code     int
	out, err string
}

// runPay runs "caddy x402 pay" in this process. The key is in the environment, the data directory is the test's own.
type payRun struct {
	t        *testing.T
	stdin    string
	terminal bool // both outputs
	noKey    bool
	data     string
}

func (p payRun) run(args ...string) ran {
	p.t.Helper()
	if p.data == "" {
		p.data = p.t.TempDir()
	}
	p.t.Setenv("XDG_DATA_HOME", p.data)
	p.t.Setenv("X402_PRIVATE_KEY", "0x"+payerKey)
	if p.noKey {
		p.t.Setenv("X402_PRIVATE_KEY", "")
	}
	root := &cobra.Command{Use: "x402"}
	root.AddCommand(newPayCommand(payIO{terminal: func(io.Writer) bool { return p.terminal }}))
	var out, errOut bytes.Buffer
	root.SetIn(strings.NewReader(p.stdin))
	root.SetOut(&out)
	root.SetErr(&errOut)
	root.SetArgs(append([]string{"pay"}, args...))
	r := ran{code: exitCodeIn(p.t, root.ExecuteContext(p.t.Context()))}
	r.out, r.err = out.String(), errOut.String()
	return r
}

// exitCodeIn reads the code as Caddy's main function does, from a type that it does not export.
func exitCodeIn(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	v := reflect.Indirect(reflect.ValueOf(err))
	if v.Kind() != reflect.Struct || !v.FieldByName("ExitCode").IsValid() {
		t.Fatalf("Caddy would end with code 1: %v", err)
	}
	return int(v.FieldByName("ExitCode").Int())
}

// object reads the JSON on the standard output.
func (r ran) object(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(r.out), &v); err != nil {
		t.Fatalf("standard output is no JSON: %v\n%s\n%s", err, r.out, r.err)
	}
	return v
}

// clean fails if a secret was printed.
func (r ran) clean(t *testing.T, s *shop) {
	t.Helper()
	secrets := []string{payerKey, strings.ToUpper(payerKey), "\x1b"}
	for _, value := range s.got() {
		secrets = append(secrets, value)
		if p, err := x402.DecodePayload(value); err == nil {
			secrets = append(secrets, common.Bytes2Hex(p.Signature))
		}
	}
	for _, secret := range secrets {
		if strings.Contains(r.out+r.err, secret) {
			t.Errorf("printed %q:\n%s\n%s", secret, r.out, r.err)
		}
	}
}

// A script gets one JSON object that says everything but the secrets.
func TestPayJSON(t *testing.T) {
	for _, v1 := range []bool{false, true} {
		s := newShop(t, "base-sepolia")
		s.v1 = v1
		r := payRun{t: t}.run(s.URL + "/x?a=b")
		r.clean(t, s)
		if r.code != exitOK || r.err != "" || len(s.got()) != 1 {
			t.Fatalf("code %d, %d payments, standard error %q", r.code, len(s.got()), r.err)
		}
		key, _ := crypto.HexToECDSA(payerKey)
		p, err := x402.DecodePayload(s.got()[0])
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"outcome": "paid", "paid": true, "url": s.URL + "/x?a=b", "method": "GET", "status": 200.0, "x402Version": float64(p.Version),
			"network": "eip155:84532", "asset": s.network.Asset.Address.Hex(), "amount": "10000", "amountDecimal": "0.01", "symbol": "USDC",
			"payTo": shopPayTo, "payer": crypto.PubkeyToAddress(key.PublicKey).Hex(), "nonce": p.Authorization.Nonce.Hex(),
			"validBefore": float64(p.Authorization.ValidBefore.Uint64()), "payment": "pay_1", "transaction": shopTransaction,
			"attempts": 2.0, "body": "sunny",
		}
		if got := r.object(t); !reflect.DeepEqual(got, want) {
			t.Errorf("printed\n%v\nwant\n%v", got, want)
		}
	}
}

// A person gets the body, and the story beside it.
func TestPayTerminal(t *testing.T) {
	s := newShop(t, "base-sepolia")
	r := payRun{t: t, terminal: true}.run(s.URL)
	r.clean(t, s)
	if r.code != exitOK || r.out != "sunny" {
		t.Fatalf("code %d, standard output %q", r.code, r.out)
	}
	for _, want := range []string{"> GET " + s.URL, "402 Payment Required", "0.01 USDC on eip155:84532 (base-sepolia)", shopPayTo, "weather?[2J", "signed by 0x", "200 OK", shopTransaction} {
		if !strings.Contains(r.err, want) {
			t.Errorf("the story lacks %q:\n%s", want, r.err)
		}
	}
	if quiet := (payRun{t: t, terminal: true}).run("-q", s.URL); quiet.err != "" || quiet.out != "sunny" {
		t.Errorf("with -q: %q, %q", quiet.out, quiet.err)
	}
	if loud := (payRun{t: t}).run("-v", s.URL); !strings.Contains(loud.err, "signed by") {
		t.Errorf("with -v: %q", loud.err)
	}
}

// Every way to end has its code, and what can be known is said.
func TestPayExitCodes(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(code)
			_, _ = io.WriteString(w, "sorry")
		}
	}
	dead := httptest.NewServer(nil)
	dead.Close()
	for _, tc := range []struct {
		name    string
		prepare func(*shop)
		args    []string
		code    int
		want    map[string]any // outcome, error.code
		says    string
		sent    int
	}{
		{"over the cap", nil, []string{"--max-amount", "0.009"}, exitDeclined, map[string]any{"outcome": "declined", "error": "over_cap"}, "--max-amount", 0},
		{"the default cap", func(s *shop) { s.offers[0] = s.price(100_001, "") }, nil, exitDeclined, map[string]any{"outcome": "declined", "error": "over_cap"}, "0.100001", 0},
		{"just the default cap", func(s *shop) { s.offers[0] = s.price(100_000, "") }, nil, exitOK, map[string]any{"outcome": "paid"}, "", 1},
		{"other network", nil, []string{"--network", "base"}, exitDeclined, map[string]any{"outcome": "declined", "error": "network_not_allowed"}, "--network", 0},
		{"other plan", nil, []string{"--plan", "day"}, exitDeclined, map[string]any{"outcome": "declined", "error": "no_acceptable_offer"}, "", 0},
		{"refused", func(s *shop) {
			s.before = func(w http.ResponseWriter, _ *http.Request) { s.demand(w, "invalid_exact_evm_insufficient_balance") }
		}, nil, exitRefused, map[string]any{"outcome": "refused", "error": "payment_refused"}, "insufficient_balance", 1},
		{"4xx without a receipt", func(s *shop) { s.before = status(400) }, nil, exitRefused, map[string]any{"outcome": "refused"}, "", 1},
		{"unknown", func(s *shop) { s.before = status(503) }, nil, exitUnknown, map[string]any{"outcome": "unknown", "error": "outcome_unknown"}, "do NOT pay again", 1},
		{"upstream failed", func(s *shop) { s.serve = status(502) }, nil, exitBadAnswer, map[string]any{"outcome": "paid", "status": 502.0, "body": "sorry"}, "", 1},
		{"no server", nil, []string{dead.URL}, exitTransport, map[string]any{"outcome": "failed", "error": "transport"}, "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newShop(t, "base-sepolia")
			if tc.prepare != nil {
				tc.prepare(s)
			}
			args := tc.args
			if len(args) == 0 || !strings.HasPrefix(args[len(args)-1], "http") {
				args = append(args, s.URL)
			}
			r := payRun{t: t}.run(args...)
			r.clean(t, s)
			got := r.object(t)
			if e, ok := got["error"].(map[string]any); ok {
				got["error"] = e["code"]
			}
			for k, v := range tc.want {
				if got[k] != v {
					t.Errorf("%s: %v, want %v", k, got[k], v)
				}
			}
			if tc.want["error"] == nil && got["error"] != nil {
				t.Errorf("error %v", got["error"])
			}
			if r.code != tc.code || len(s.got()) != tc.sent || !strings.Contains(r.err, tc.says) {
				t.Errorf("code %d, %d payments, standard error %q", r.code, len(s.got()), r.err)
			}
		})
	}
	free := httptest.NewServer(status(404))
	defer free.Close()
	if r := (payRun{t: t}).run(free.URL); r.code != exitFree || r.object(t)["outcome"] != "free" {
		t.Errorf("an error that has nothing to do with money: code %d", r.code)
	}
}

// Mainnet is paid on when it is named, and only then.
func TestPayMainnet(t *testing.T) {
	s := newShop(t, "base")
	if r := (payRun{t: t}).run(s.URL); r.code != exitDeclined || len(s.got()) != 0 {
		t.Errorf("without --network: code %d, %d payments", r.code, len(s.got()))
	}
	for i, name := range []string{"base", "eip155:8453"} {
		if r := (payRun{t: t}).run("--network", "base-sepolia", "--network", name, s.URL); r.code != exitOK || len(s.got()) != i+1 {
			t.Errorf("--network %s: code %d, %d payments", name, r.code, len(s.got()))
		}
	}
}

// A token beside USDC is spent when it is named with its decimals.
func TestPayAsset(t *testing.T) {
	s := newShop(t, "base-sepolia")
	s.network = x402.Network{ID: "eip155:31337", ChainID: 31337, Asset: x402.Asset{
		Address: common.HexToAddress("0x5FbDB2315678afecb367f032d93F642f64180aa3"), Name: "Toy", Version: "7", Decimals: 2,
	}}
	s.offers = []x402.Requirements{s.price(10, "")}
	if r := (payRun{t: t}).run(s.URL); r.code != exitDeclined {
		t.Errorf("unnamed: code %d", r.code)
	}
	asset := "eip155:31337/" + s.network.Asset.Address.Hex() + "/2"
	if r := (payRun{t: t}).run("--asset", asset, "--max-amount", "0.09", s.URL); r.code != exitDeclined {
		t.Errorf("over the cap: code %d", r.code)
	}
	if r := (payRun{t: t}).run("--asset", asset, s.URL); r.code != exitOK || r.object(t)["amountDecimal"] != "0.1" {
		t.Errorf("named: code %d, %s", r.code, r.out)
	}
}

// A dry run shows the price and sends no payment; it needs no key.
func TestPayDryRun(t *testing.T) {
	s := newShop(t, "base-sepolia")
	r := payRun{t: t, noKey: true}.run("--dry-run", s.URL)
	got := r.object(t)
	if r.code != exitOK || got["outcome"] != "dry_run" || got["amountDecimal"] != "0.01" || got["payer"] != nil || got["payTo"] != shopPayTo {
		t.Errorf("code %d, %s", r.code, r.out)
	}
	offer, ok := got["offer"].(map[string]any)
	if !ok || offer["x402Version"] != 2.0 || len(offer["accepts"].([]any)) != 1 {
		t.Errorf("offer %v", got["offer"])
	}
	r = payRun{t: t, terminal: true}.run("--dry-run", s.URL)
	r.clean(t, s)
	for _, want := range []string{"0.01 USDC on eip155:84532", shopPayTo, "from     0x", "Nothing was signed"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("lacks %q:\n%s", want, r.out)
		}
	}
	if r := (payRun{t: t}).run("--dry-run", "--max-amount", "0.001", s.URL); r.code != exitDeclined || r.object(t)["offer"] == nil {
		t.Errorf("over the cap: code %d, %s", r.code, r.out)
	}
	if len(s.got()) != 0 {
		t.Errorf("%d payments were sent", len(s.got()))
	}
}

// After an unknown outcome the same payment, byte for byte, gets what it paid for; its file is private, and is gone when
// the outcome is known.
func TestPayResume(t *testing.T) {
	for _, explicit := range []bool{false, true} {
		s := newShop(t, "base-sepolia")
		s.instead(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.Header().Set("Link", `</x402/payments/pay_1>; rel="payment-status"`)
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		run := payRun{t: t, data: t.TempDir()}
		args := []string{"-H", "X-Own: 1", "-d", "the body", "-X", "PUT", s.URL + "/x"}
		file := filepath.Join(t.TempDir(), "payment.json")
		if explicit {
			args = append(args, "--save-payment", file)
		}
		r := run.run(args...)
		r.clean(t, s)
		got := r.object(t)
		saved, _ := got["savedPayment"].(string)
		if r.code != exitUnknown || saved == "" || explicit && saved != file || got["statusUrl"] != s.URL+"/x402/payments/pay_1" {
			t.Fatalf("code %d, %s", r.code, r.out)
		}
		if !strings.Contains(r.err, "caddy x402 pay --resume "+saved) {
			t.Errorf("does not say how to go on: %s", r.err)
		}
		if info, err := os.Stat(saved); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the file: %v, %v", info, err)
		}
		if content, _ := os.ReadFile(saved); strings.Contains(string(content), payerKey) {
			t.Error("the key is in the file")
		}
		if explicit { // another payment does not overwrite it
			if r := run.run(args...); r.code != exitDeclined || len(s.got()) != 1 {
				t.Errorf("over a saved payment: code %d, %d payments", r.code, len(s.got()))
			}
		}
		if r := run.run("--resume", saved); r.code != exitUnknown || len(s.got()) != 2 {
			t.Errorf("too early: code %d", r.code)
		}
		s.instead(nil)
		run.noKey = true
		r = run.run("--resume", saved)
		r.clean(t, s)
		if got := r.object(t); r.code != exitOK || got["body"] != "sunny" || got["outcome"] != "paid" || got["amount"] != "10000" {
			t.Errorf("resumed: code %d, %s", r.code, r.out)
		}
		if p := s.got(); p[0] != p[1] || p[1] != p[2] {
			t.Error("another payment was sent")
		}
		if s.last.Method != http.MethodPut || s.body != "the body" || s.last.Header.Get("X-Own") != "1" || s.last.URL.Path != "/x" {
			t.Errorf("another request was sent: %s %s, %q", s.last.Method, s.last.URL, s.body)
		}
		if _, err := os.Stat(saved); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file is still there: %v", err)
		}
		if r := run.run("--resume", saved); r.code != exitUsage {
			t.Errorf("resumed again: code %d", r.code)
		}
	}
}

// A payment that is done with leaves no file.
func TestPayForgets(t *testing.T) {
	s := newShop(t, "base-sepolia")
	run := payRun{t: t, data: t.TempDir()}
	run.run(s.URL)
	s.instead(func(w http.ResponseWriter, _ *http.Request) { s.demand(w, "no") })
	run.run(s.URL)
	if len(s.got()) != 2 {
		t.Fatalf("%d payments", len(s.got()))
	}
	err := filepath.WalkDir(run.data, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("left %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
