package management

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/rig"
)

// asCommand makes this program the caddy command, with all modules that the tests have.
const asCommand = "X402_MANAGEMENT_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		os.Args[0] = "caddy"
		caddycmd.Main()
		return
	}
	os.Exit(m.Run()) // what Caddy leaves behind of ours is looked for by the rig
}

// office is a shop with a management API, whose Caddy has its admin endpoint on.
type office struct {
	*rig.Rig
	t       testing.TB
	admin   string
	options rig.Options
	secrets []string // all that were made
	edit    func(caddyfile string) string
}

// newOffice opens a shop: requests for a cent, a plan for a dollar, and an upstream that fails on /broken.
func newOffice(t testing.TB, change ...func(*rig.Options)) *office {
	t.Helper()
	o := &office{t: t, admin: rig.FreeAddr(t)}
	o.options = rig.Options{
		Site: `
	x402 {
		name shop
		price $0.01
		plan day $1.00 {
			ttl 24h
		}
	}
	x402_service
	x402_management {
		path /ops
		key_max_age 90d
	}
	reverse_proxy {upstream}
	`,
		Upstream: func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/broken") {
				w.WriteHeader(http.StatusInternalServerError)
			}
			_, _ = io.WriteString(w, "sunny")
		},
	}
	for _, f := range change {
		f(&o.options)
	}
	o.Rig = rig.New(t, o.options)
	o.reload()
	return o
}

func (o *office) reload() {
	o.t.Helper()
	text := strings.Replace(o.Caddyfile(o.options), "admin off", "admin "+o.admin, 1)
	if o.edit != nil {
		text = o.edit(text)
	}
	if err := os.WriteFile(filepath.Join(o.Dir, "Caddyfile"), []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
	if err := rig.LoadText(text); err != nil {
		o.t.Fatal(err)
	}
	if !soon(func() bool { // connections of the configuration before may still be closed
		a := rig.NewBuyer(o.t, 1).Get(o.URL("/"))
		return a.Err == nil && a.Status == http.StatusPaymentRequired
	}) {
		o.t.Fatal("the configuration does not answer")
	}
}

// soon asks until it holds, and reports whether it does: for longer than the busiest machine needs.
func soon(holds func() bool) bool {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return false
}

// command runs "caddy x402 apikeys …" where the Caddyfile is.
func (o *office) command(args ...string) (code int, out, errOut string) {
	o.t.Helper()
	return o.x402(append([]string{"apikeys"}, args...)...)
}

// x402 runs "caddy x402 …" where the Caddyfile is.
func (o *office) x402(args ...string) (code int, out, errOut string) {
	o.t.Helper()
	cmd := exec.CommandContext(o.t.Context(), os.Args[0], append([]string{"x402"}, args...)...)
	cmd.Dir, cmd.Env = o.Dir, append(os.Environ(), asCommand+"=1", "HOME="+o.Dir, "XDG_CONFIG_HOME="+o.Dir, "XDG_DATA_HOME="+o.Dir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.ExitCode(), stdout.String(), stderr.String()
	}
	if err != nil {
		o.t.Fatal(err)
	}
	return 0, stdout.String(), stderr.String()
}

type apiKey struct {
	ID      string   `json:"id"`
	Status  string   `json:"status"`
	Mode    string   `json:"mode"`
	Scopes  []string `json:"scopes"`
	Prefix  string   `json:"prefix"`
	Secret  string   `json:"secret"`
	Label   string   `json:"label"`
	Created string   `json:"createdAt"`
}

// key makes a key on the command line.
func (o *office) key(args ...string) apiKey {
	o.t.Helper()
	code, out, errOut := o.command(append([]string{"create", "--json", "--label", "a test"}, args...)...)
	if code != 0 {
		o.t.Fatalf("code %d: %s%s", code, out, errOut)
	}
	k := decode[apiKey](o.t, out)
	o.secrets = append(o.secrets, k.Secret)
	return k
}

// ops asks the management API with a test key.
func (o *office) ops(secret, method, path, body string, headers ...string) rig.Answer {
	o.t.Helper()
	headers = append([]string{"Authorization", "Bearer " + secret, "X-Network", "testnet", "Content-Type", "application/json"}, headers...)
	return rig.NewBuyer(o.t, 1).Do(o.t.Context(), method, o.URL("/ops"+path), body, headers...)
}

func decode[T any](t testing.TB, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// sell makes a payment that is delivered, one that is not, and one for the plan.
func (o *office) sell() {
	o.t.Helper()
	if a, _ := rig.NewBuyer(o.t, 1).Buy(o.URL("/weather")); a.Err != nil || a.Status != http.StatusOK {
		o.t.Fatalf("%d %v %s", a.Status, a.Err, a.Body)
	}
	if a, _ := rig.NewBuyer(o.t, 2).Buy(o.URL("/broken")); a.Err != nil || a.Status != http.StatusInternalServerError {
		o.t.Fatalf("%d %v %s", a.Status, a.Err, a.Body)
	}
	b := rig.NewBuyer(o.t, 3)
	offer := b.Offer(o.URL("/weather"))
	for i := range offer.Accepts {
		if offer.Accepts[i].Amount == "1000000" {
			if a := b.Get(o.URL("/weather"), "PAYMENT-SIGNATURE", b.Sign(offer, i)); a.Status != http.StatusOK {
				o.t.Fatalf("the plan: %d %s", a.Status, a.Body)
			}
			return
		}
	}
	o.t.Fatalf("no plan is offered to %s: %+v", devnet.Payer(3).Address, offer)
}
