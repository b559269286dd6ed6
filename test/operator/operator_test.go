package operator

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/ledger/sqlite"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// asCommand makes this program the caddy command, with all modules that the tests have: a process of its own for each command.
const asCommand = "X402_TEST_AS_COMMAND"

func init() {
	if os.Getenv(asCommand) != "" {
		os.Args[0] = "caddy"
		caddycmd.Main()
		os.Exit(0)
	}
}

// ran is how a command ended.
type ran struct {
	code     int
	out, err string
}

// caddyX402 runs "caddy x402 …" in dir.
func caddyX402(t *testing.T, dir string, env []string, args ...string) ran {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, append([]string{"x402"}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), append(env, asCommand+"=1")...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	} else if ok {
		return ran{e.ExitCode(), out.String(), errOut.String()}
	}
	return ran{0, out.String(), errOut.String()}
}

// result decodes what a command that must succeed has printed.
func result[T any](t *testing.T, r ran) (v T) {
	t.Helper()
	if r.code != 0 {
		t.Fatalf("code %d\n%s%s", r.code, r.out, r.err)
	}
	return decode[T](t, r.out)
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// What operators read, as far as tests look at it.
type (
	opPage struct {
		Payments []opPayment `json:"payments"`
		Page     struct {
			Next string `json:"next"`
		} `json:"page"`
	}
	opPayment struct {
		ID            string    `json:"id"`
		State         string    `json:"state"`
		Settlement    string    `json:"settlement"`
		Delivery      string    `json:"delivery"`
		Refund        string    `json:"refund"`
		Network       string    `json:"network"`
		Symbol        string    `json:"symbol"`
		Amount        string    `json:"amount"`
		AmountDecimal string    `json:"amount_decimal"`
		Payer         string    `json:"payer"`
		Transaction   string    `json:"transaction"`
		CreatedAt     time.Time `json:"created_at"`
	}
	opFile struct {
		Payment      opPayment      `json:"payment"`
		Trail        []ledger.Entry `json:"trail"`
		Transactions []struct {
			Hash     string   `json:"hash"`
			Payments []string `json:"payments"`
		} `json:"transactions"`
	}
	opStates struct {
		States []struct {
			State    string `json:"state"`
			Payments int    `json:"payments"`
		} `json:"states"`
		Total int `json:"total"`
	}
	opProblem struct {
		Status int    `json:"status"`
		Code   string `json:"code"`
		Detail string `json:"detail"`
	}
	opError struct {
		Error struct {
			Code   string `json:"code"`
			Detail string `json:"detail"`
		} `json:"error"`
	}
)

// office is a shop whose Caddy has its admin endpoint on.
type office struct {
	*rig.Rig
	admin   string // its address
	config  string // the Caddyfile's path
	options rig.Options
	headers []string // the payment headers that were used
}

// newOffice opens a shop whose upstream fails on /broken.
func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{admin: rig.FreeAddr(t)}
	o.options.Upstream = func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/broken") {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.WriteString(w, "sunny")
	}
	o.Rig = rig.New(t, o.options)
	o.config = filepath.Join(o.Dir, "Caddyfile")
	o.reload(t, o.options)
	return o
}

// reload makes Caddy load the configuration with the admin endpoint on, which a Caddyfile names too.
func (o *office) reload(t *testing.T, options rig.Options) {
	t.Helper()
	text := strings.Replace(o.Caddyfile(options), "admin off", "admin "+o.admin, 1)
	if err := os.WriteFile(o.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := rig.LoadText(text); err != nil {
		t.Fatal(err)
	}
	// Connections of the configuration before may still be closed.
	for range 100 {
		if a := rig.NewBuyer(t, 1).Get(o.URL("/")); a.Err == nil && a.Status == http.StatusPaymentRequired {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("the new configuration does not answer")
}

// sell makes n payments of the payers 1 to 3 in turn, and one that can't be delivered, of payer 4.
func (o *office) sell(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		a, header := rig.NewBuyer(t, 1+i%3).Buy(o.URL(fmt.Sprintf("/weather/%d?city=berlin", i)))
		if a.Err != nil || a.Status != http.StatusOK {
			t.Fatalf("payment %d: %d %v %s", i, a.Status, a.Err, a.Body)
		}
		o.headers = append(o.headers, header)
	}
	if a, _ := rig.NewBuyer(t, 4).Buy(o.URL("/broken")); a.Err != nil || a.Status != http.StatusInternalServerError {
		t.Fatalf("a delivery that fails: %d %v %s", a.Status, a.Err, a.Body)
	}
	o.wait(t)
}

// wait waits until nothing more happens to the payments by itself.
func (o *office) wait(t *testing.T) {
	t.Helper()
	s := o.store(t)
	for range 200 {
		list, err := s.List(t.Context(), ledger.Query{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(list, func(p ledger.Payment) bool { return p.Open() && !(p.Final && p.Refund == ledger.RefundPending) }) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the payments are still open")
}

// ask asks the admin endpoint.
func (o *office) ask(t *testing.T, method, path string) rig.Answer {
	t.Helper()
	return rig.NewBuyer(t, 1).Do(t.Context(), method, "http://"+o.admin+path, "")
}

func (o *office) path() string { return filepath.Join(o.Dir, "ledger.db") }

// store opens the ledger's file beside the Caddy that uses it.
func (o *office) store(t *testing.T) ledger.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), o.path(), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// anchor anchors all that was written until now. The clock of the ledger goes ahead for that: nobody waits for AnchorLag.
func (o *office) anchor(t *testing.T) ledger.Anchor {
	t.Helper()
	s := o.store(t)
	a, err := ledger.NextAnchor(t.Context(), s, s.Now().Add(ledger.AnchorLag))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// fill claims n payments, each of another payer.
func fill(t *testing.T, s ledger.Store, n int) {
	t.Helper()
	for i := range n {
		p := ledger.Payment{
			AuthorizationID: x402.AuthorizationID{
				ChainID: devnet.Network().ChainID, Asset: devnet.Network().Asset.Address,
				Payer: common.BigToAddress(big.NewInt(int64(i + 1))), Nonce: common.BigToHash(big.NewInt(int64(i + 1))),
			},
			PayTo: rig.PayTo, Amount: *uint256.NewInt(10_000), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
			Binding: ledger.Binding{Route: "r", Method: "GET", Host: "h", URI: "/" + strconv.Itoa(i)}, Flow: ledger.FlowUpfront,
		}
		var err error
		if p.ID, err = ledger.NewID(rand.Reader, p.Payer); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Claim(t.Context(), p, ledger.Change{Actor: "test", Hold: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
}
