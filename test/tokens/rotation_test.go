package tokens

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/token/verify"
	"github.com/caddy-x402/caddy-x402/x402"
)

// slack is what a busy machine may be late by.
const slack = time.Second

// proofs is an upstream that verifies each request by itself, with the keys that the first instance shows.
type proofs struct {
	v       atomic.Pointer[verify.Verifier]
	good    atomic.Int64
	refused atomic.Pointer[error]
}

func (p *proofs) serve(w http.ResponseWriter, r *http.Request) {
	if v := p.v.Load(); v != nil {
		if _, err := v.Request(r); err != nil {
			p.refused.Store(&err)
		} else {
			p.good.Add(1)
		}
	}
	_, _ = w.Write([]byte("ok"))
}

// The keys are rotated under load, on three instances that share a storage: every instance shows the new key within seconds and before
// anything is signed with it, no request is refused until the overlap is over, and from then on nothing of the old key is taken.
// Afterwards a token is taken back, and all refuse it within a second.
func TestRotationUnderLoad(t *testing.T) {
	up := &proofs{}
	f := newFleet(t, 3, up.serve)
	jwks := func(m *member) *http.Client { // who looks for the site finds an instance
		return &http.Client{Transport: &toHost{m.Addr}}
	}
	v, err := verify.New(verify.Options{Issuer: "http://" + host, JWKS: "http://" + host + "/.well-known/jwks.json", Client: jwks(f.members[0])})
	if err != nil {
		t.Fatal(err)
	}
	up.v.Store(v)

	var first []pass
	var headers []string
	for i, m := range f.members {
		token, header := f.mustBuy(m, rig.NewBuyer(t, i+1))
		first, headers = append(first, pass{token: token, kid: kidOf(token), at: time.Now()}), append(headers, header)
	}
	l := newLoad(f, first...)
	admin := f.members[1].admin
	before := f.keys(0, "list", "--address", admin)
	old := before.of("signing")
	if len(before.Keys) != 1 || old.ID != first[0].kid || old.LongestToken != 24*60*60 {
		t.Errorf("the ring: %+v", before)
	}
	if cost := f.keys(2, "rotate", "--lead", "10s", "--overlap", "1s", "--address", admin); cost.Error.Code != "tokens_would_end" {
		t.Errorf("an overlap that ends tokens: %+v", cost)
	}
	rotated := f.keys(0, "rotate", "--lead", "10s", "--overlap", "1s", "--force", "--address", admin)
	done := time.Now()
	old, next := rotated.of("signing"), rotated.of("next")
	if next.ID == "" || old.VerifiesUntil.Before(next.SignsFrom) {
		t.Fatalf("rotated: %+v", rotated)
	}
	time.Sleep(time.Until(old.VerifiesUntil.Add(slack + 2*time.Second)))
	f.await("some load on the new key", time.Minute, func() bool { return l.enough(old, next) })
	l.end()

	l.judge(old, next, done)
	if n := up.good.Load(); n < 100 {
		t.Errorf("the upstream verified %d requests", n)
	}
	if err := up.refused.Load(); err != nil {
		t.Errorf("the upstream could not verify a request: %v", *err)
	}
	// Who comes back with what it has paid by gets a token of the new key, which all take.
	again := f.members[2].ask(rig.NewBuyer(t, 1), "/plans/x", x402.HeaderSignature, headers[0])
	token := again.Header.Get("X-Access-Token")
	if again.Status != http.StatusOK || kidOf(token) != next.ID {
		t.Fatalf("the token again: %d, of key %s, %s", again.Status, kidOf(token), again.Body)
	}
	for i, m := range f.members {
		if a := m.ask(rig.NewBuyer(t, 1), "/plans/x", bearer(token)...); a.Status != http.StatusOK {
			t.Errorf("instance %d refuses the new token: %d %s", i, a.Status, a.Body)
		}
	}
	f.takeBack()
}

// toHost sends what is for the site to an instance.
type toHost struct{ addr string }

func (h *toHost) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Host, r.URL.Host = host, h.addr
	res, err := http.DefaultTransport.RoundTrip(r)
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	return res, err
}

// judge compares what was seen with what the ring says.
func (l *load) judge(old, next keyInfo, rotated time.Time) {
	t := l.f.t
	t.Helper()
	for _, text := range l.failed {
		t.Error(text)
	}
	for i, at := range l.shown[next.ID] {
		if at.IsZero() || at.After(rotated.Add(4*time.Second+slack)) || at.After(next.SignsFrom) {
			t.Errorf("instance %d shows the new key %s after the rotation", i, at.Sub(rotated))
		}
	}
	var ofNew, lateOld, late int
	for _, p := range l.passes {
		if p.kid != next.ID {
			if p.asked.After(next.SignsFrom.Add(slack)) {
				t.Errorf("a token was signed with the key %s %s after the change", p.kid, p.asked.Sub(next.SignsFrom))
			}
			continue
		}
		ofNew++
		if p.at.Before(next.SignsFrom) {
			t.Errorf("a token was signed with the new key %s before its time", next.SignsFrom.Sub(p.at))
		}
	}
	for _, s := range l.shots {
		ended := s.kid == old.ID && s.done.After(old.VerifiesUntil)
		if !ended && s.status != http.StatusOK {
			t.Errorf("instance %d refused a token of %s, %s before the end of the overlap: %d %v %s",
				s.member, s.kid, old.VerifiesUntil.Sub(s.sent), s.status, s.err, s.body)
		}
		if s.kid != old.ID || s.sent.Before(old.VerifiesUntil) {
			continue
		}
		if late++; s.status == http.StatusOK && s.sent.After(old.VerifiesUntil.Add(50*time.Millisecond)) {
			lateOld++
		}
	}
	if lateOld > 0 || late < 20 {
		t.Errorf("%d of %d tokens of the old key were taken after the overlap", lateOld, late)
	}
	if ofNew < 5 || len(l.shots) < 1000 {
		t.Errorf("there was little load: %d requests, %d tokens of the new key", len(l.shots), ofNew)
	}
	t.Logf("%d requests on three instances, none refused before the end of the overlap, none of %d taken after it; %d tokens of the old key, %d of the new one",
		len(l.shots), late, len(l.passes)-ofNew, ofNew)
}

// takeBack revokes a plan by command.
func (f *fleet) takeBack() {
	f.t.Helper()
	b, other := rig.NewBuyer(f.t, 200), rig.NewBuyer(f.t, 201)
	token, header := f.mustBuy(f.members[0], b)
	kept, _ := f.mustBuy(f.members[0], other)
	served := func(token string) (n int) {
		for _, m := range f.members {
			if a := m.ask(b, "/plans/x", bearer(token)...); a.Status == http.StatusOK {
				n++
			}
		}
		return n
	}
	if served(token) != 3 || served(kept) != 3 {
		f.t.Fatal("tokens are not taken by all")
	}
	payment := f.members[0].ask(b, "/plans/x", x402.HeaderSignature, header).Header.Get("X-Payment-Id")
	r := f.run("tokens", "revoke", payment, "--address", f.members[1].admin)
	if r.Code != 0 || !strings.Contains(r.Out, payment) {
		f.t.Fatalf("revoking: %d\n%s%s", r.Code, r.Out, r.Err)
	}
	took := f.await("all instances refuse what was revoked", time.Second, func() bool { return served(token) == 0 })
	f.t.Logf("all instances refuse %s after the command has returned", took)
	if served(kept) != 3 {
		f.t.Error("another's token is refused")
	}
	// It stays so over a crash, and for who proves that it is the one that paid.
	f.members[2].Kill()
	f.start(f.members[2])
	if a := f.members[2].ask(b, "/plans/x", bearer(token)...); a.Status != http.StatusPaymentRequired || !strings.Contains(a.Body, "token_revoked") {
		f.t.Errorf("after a crash: %d %s", a.Status, a.Body)
	}
	if served(kept) != 3 {
		f.t.Error("another's token is refused after a crash")
	}
	if a := f.members[0].ask(b, "/plans/x", x402.HeaderSignature, header); a.Status != http.StatusPaymentRequired || !strings.Contains(a.Body, "token_revoked") {
		f.t.Errorf("the same payment again: %d %s", a.Status, a.Body)
	}
	// It may buy another, with a payment of its own.
	if fresh, _ := f.mustBuy(f.members[1], b); served(fresh) != 3 || served(token) != 0 {
		f.t.Error("what was bought afterwards is not taken, or what was revoked is")
	}
	for args, code := range map[string]int{"pay_" + strings.Repeat("a", 28): 3, "nonsense": 3} {
		if r := f.run("tokens", "revoke", args, "--address", f.members[1].admin); r.Code != code {
			f.t.Errorf("revoking %s: %d\n%s%s", args, r.Code, r.Out, r.Err)
		}
	}
	if r := f.run("tokens", "revoke", payment, "--store", "sqlite:"+filepath.Join(f.dir, "ledger.db")); r.Code != 0 {
		f.t.Errorf("revoking again, straight in the ledger: %d\n%s%s", r.Code, r.Out, r.Err)
	}
}

// Commands find the ring where no Caddy runs, and what they change there is what the next one starts with.
func TestKeysWithoutACaddy(t *testing.T) {
	f := newFleet(t, 1, nil)
	m := f.members[0]
	token, _ := f.mustBuy(m, rig.NewBuyer(t, 1))
	m.Kill()
	list := f.keys(0, "list", "--config", m.Config)
	if len(list.Keys) != 1 || list.Source != "storage" || list.Keys[0].ID != kidOf(token) {
		t.Fatalf("the ring: %+v", list)
	}
	rotated := f.keys(0, "rotate", "--algorithm", "ES256", "--config", m.Config)
	next := rotated.of("next")
	if wait := time.Until(next.SignsFrom); next.Algorithm != "ES256" || wait < 9*time.Minute || wait > 11*time.Minute {
		t.Errorf("the new key: %+v", next)
	}
	if again := f.keys(2, "rotate", "--config", m.Config); again.Error.Code != "key_waiting" {
		t.Errorf("rotated twice: %+v", again)
	}
	if signs := f.keys(2, "retire", list.Keys[0].ID, "--force", "--config", m.Config); signs.Error.Code != "key_signs" {
		t.Errorf("retired the key that signs: %+v", signs)
	}
	if none := f.keys(3, "retire", "nobody", "--config", m.Config); none.Error.Code != "key_not_found" {
		t.Errorf("retired no key: %+v", none)
	}
	f.start(m)
	if a := m.ask(rig.NewBuyer(t, 1), "/.well-known/jwks.json"); !strings.Contains(a.Body, next.ID) || strings.Contains(a.Body, `"d"`) {
		t.Errorf("shown: %s", a.Body)
	}
	if a := m.ask(rig.NewBuyer(t, 1), "/plans/x", bearer(token)...); a.Status != http.StatusOK {
		t.Errorf("the token: %d %s", a.Status, a.Body)
	}
	if back := f.keys(0, "retire", next.ID[:10], "--address", m.admin); len(back.Keys) != 1 || back.Keys[0].State != "signing" {
		t.Errorf("taken back: %+v", back)
	}
	text, err := os.ReadFile(filepath.Join(f.dir, "storage", "x402", "keys", "token.pem"))
	if err != nil || strings.Count(string(text), "PRIVATE KEY-----\n") != 2 {
		t.Errorf("the storage: %v\n%d bytes", err, len(text))
	}
}
