package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/goleak"

	"github.com/caddy-x402/caddy-x402/devnet"
)

// The demo as a whole ends by itself, tells what happened, and leaves nothing behind.
func TestDemo(t *testing.T) {
	defer goleak.VerifyNone(t, append(devnet.LeakOptions(), goleak.IgnoreCurrent(),
		// What Caddy's file storage and log files leave behind: a lock's keeper ends within seconds, a log's mill never.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
		goleak.IgnoreAnyFunction("github.com/DeRuina/timberjack.(*Logger).millRun"))...)
	home := t.TempDir()
	t.Setenv("TMPDIR", home)
	var out bytes.Buffer
	if err := run(t.Context(), &out, options{}); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	text := out.String()
	for i, it := range steps {
		if !strings.Contains(text, it.title+"\n") {
			t.Errorf("step %d, %s, is missing", i+1, it.title)
		}
	}
	for _, want := range []string{
		`status +402 Payment Required`,
		`price +10000 atomic units = 0\.01 USDC`,
		`pay to +` + seller.Hex(),
		`network +eip155:84532 \(base-sepolia\)`,
		`signature +0x[0-9a-f]{12}…[0-9a-f]{5} \(65 bytes`,
		`status +200 OK`,
		`gas +\d+ used, 0\.\d+ ETH`,
		`AuthorizationUsed authorizer ` + buyer.Address.Hex(),
		`Transfer +from +` + buyer.Address.Hex(),
		`X-Payment-Payer +` + buyer.Address.Hex(),
		`typ, aud +x402-assertion\+jwt, x402-upstream`,
		`"state":"DELIVERED"|says DELIVERED`,
		`delivered +request +settled +delivered`,
		`seller +` + seller.Hex() + ` +0\.01 USDC`,
		`error +invalid_exact_evm_nonce_already_used`,
		`✓ there is one transfer from buyer to seller`,
		`bought +plan "day" for 1\.00 USDC`,
		`GET /health +503 `,
		`Payment-Signature: REDACTED`,
		`All \d+ claims hold\.`,
		`it lists both payments`,
		`the dashboard is served`,
		`make demo KEEP=1`,
		`bin/caddy x402 pay `,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("nothing in the story matches %q", want)
		}
	}
	if strings.ContainsAny(text, "\x1b✗") {
		t.Error("the story has colours, or claims that don't hold")
	}
	if left, err := os.ReadDir(home); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	narrow(t, text)
	if t.Failed() {
		t.Log(text)
	}
}

// narrow checks that the story fits into 100 columns. Paths of the Caddyfile are as long as they are.
func narrow(t *testing.T, text string) {
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 && !strings.Contains(line, os.TempDir()) {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// reader hears what the story says while it is told.
type reader struct {
	text   bytes.Buffer
	waits  string
	called func(text string)
}

func (r *reader) Write(b []byte) (int, error) {
	n, err := r.text.Write(b)
	if r.called != nil && strings.Contains(r.text.String(), r.waits) {
		f := r.called
		r.called = nil
		f(r.text.String())
	}
	return n, err
}

// With keep, the shop stays open for whoever follows what is printed, until it is interrupted.
func TestDemoKept(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	status := 0
	out := &reader{waits: "x402 doctor", called: func(text string) {
		defer interrupt()
		url := regexp.MustCompile(`curl -i (\S+)`).FindStringSubmatch(text)
		if url == nil {
			t.Error("no command to try")
			return
		}
		res, err := http.Get(url[1])
		if err != nil {
			t.Error(err)
			return
		}
		_ = res.Body.Close()
		status = res.StatusCode
		signIn(t, text)
	}}
	if err := run(ctx, out, options{keep: true, colour: true}); err != nil {
		t.Fatalf("%v\n%s", err, &out.text)
	}
	if status != http.StatusPaymentRequired {
		t.Errorf("the kept shop answered %d", status)
	}
	if !strings.Contains(out.text.String(), "Closing.") || !strings.Contains(out.text.String(), green+"✓") {
		t.Error("it did not say that it closes, or has no colours")
	}
}

// signIn asks with the key that is printed beside the dashboard's address, as the page does.
func signIn(t *testing.T, text string) {
	t.Helper()
	plain := regexp.MustCompile(`\x1b\[\d*m`).ReplaceAllString(text, "")
	at := regexp.MustCompile(`dashboard +(http://\S+)/dashboard\s+sign in with +(sk_test_\S+)`).FindStringSubmatch(plain)
	if at == nil {
		t.Errorf("no dashboard to sign in to:\n%s", text)
		return
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at[1]+"/v1/wallets", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+at[2])
	r.Header.Set("X-Network", "testnet")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Error(err)
		return
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("with the key that is printed: %d", res.StatusCode)
	}
}

// A claim that does not hold ends the story with an error that says which, and no later step is told.
func TestWrongClaim(t *testing.T) {
	var out bytes.Buffer
	later := false
	err := newStory(&paper{out: &out}, nil).tell(t.Context(), []step{
		{"A step", func(s *story, _ context.Context) error {
			same(s.paper, "the status is 402", 200, 402)
			s.check(true, "the sun shines")
			return nil
		}},
		{"Another", func(*story, context.Context) error { later = true; return nil }},
	})
	if err == nil || !strings.Contains(err.Error(), "step 1 does not hold: the status is 402: it is 200, and should be 402") {
		t.Errorf("the error is %v", err)
	}
	if later || !strings.Contains(out.String(), "✗ the status is 402") || !strings.Contains(out.String(), "✓ the sun shines") {
		t.Errorf("told:\n%s", &out)
	}
}

// What can't be written, or was interrupted, is no success either.
func TestNoStory(t *testing.T) {
	boom := errors.New("boom")
	p := &paper{out: writerFunc(func([]byte) (int, error) { return 0, boom })}
	if err := newStory(p, nil).tell(t.Context(), []step{{"A step", func(*story, context.Context) error { return nil }}}); !errors.Is(err, boom) {
		t.Errorf("writing failed, and the error is %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, &bytes.Buffer{}, options{}); err == nil {
		t.Error("an interrupted demo succeeded")
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// The Caddyfile is shown as an example, so it is written the way `caddy fmt` writes.
func TestCaddyfileIsFormatted(t *testing.T) {
	if got := string(caddyfile.Format([]byte(shop))); got != shop {
		t.Errorf("caddy fmt would write:\n%s", got)
	}
}

func TestWrap(t *testing.T) {
	for text, want := range map[string][]string{
		"":                 {""},
		"a bb ccc":         {"a bb", "ccc"},
		"ab cdefgh i":      {"ab", "cdefgh", "i"},
		"one\ntwo":         {"one", "two"},
		"üü üü":            {"üü üü"},
		"  much   space  ": {"much", "space"},
	} {
		if got := wrap(text, 5); !slices.Equal(got, want) {
			t.Errorf("%q: %q, should be %q", text, got, want)
		}
	}
}
