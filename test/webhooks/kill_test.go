//go:build interop

package webhooks

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/internal/faultpoint"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/test/stores"
)

// The environment of a child process: the configuration that it serves, and the step after which it kills itself.
const (
	envConfig = "X402_WEBHOOKS_CONFIG"
	envStep   = "X402_WEBHOOKS_STEP"
	// envCommand makes this program the caddy command.
	envCommand = "X402_WEBHOOKS_COMMAND"
)

func now() time.Time { return time.Now() }

func header(w webhook) http.Header {
	h := http.Header{}
	for name, value := range w.Headers {
		h.Set(name, value)
	}
	return h
}

// TestMain runs the tests, or, started by one of them, a Caddy of its own that dies where it is told to.
func TestMain(m *testing.M) {
	if os.Getenv(envCommand) != "" {
		os.Args[0] = "caddy"
		caddycmd.Main()
		return
	}
	if path := os.Getenv(envConfig); path != "" {
		if err := serve(path, os.Getenv(envStep)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serve(path, step string) error {
	if step != "" {
		faultpoint.Set(func(s string) {
			if s == step {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // nothing more happens in this process
			}
		})
	}
	config, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := caddy.Load(config, true); err != nil {
		return err
	}
	fmt.Println("ready")
	select {}
}

// start runs a Caddy in a process of its own, which is killed in the end, and gives what waits for its death.
func start(t *testing.T, path, dir, step string) (kill func(), dead <-chan struct{}) {
	t.Helper()
	cmd, done, ready := exec.Command(os.Args[0]), make(chan struct{}), make(chan bool, 1)
	cmd.Env = append(os.Environ(), envConfig+"="+path, envStep+"="+step, "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(done)
		buf := make([]byte, 16)
		n, _ := out.Read(buf)
		ready <- strings.HasPrefix(string(buf[:n]), "ready")
		_ = cmd.Wait()
	}()
	kill = func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		<-done
	}
	t.Cleanup(kill)
	select {
	case ok := <-ready:
		if !ok {
			t.Fatal("the child did not start")
		}
	case <-time.After(time.Minute):
		t.Fatal("the child did not start in time")
	}
	return kill, done
}

// Wherever the sender is killed, each event arrives; and the ledger, the delivery log and the receiver agree.
func TestKilledSender(t *testing.T) {
	t.Setenv("T_SECRET", webhooks.NewSecret())
	for step, store := range map[string]string{"webhooks enqueued": "sqlite", "webhook leased": "postgres", "webhook sent": "redis"} {
		t.Run(step+" in "+store, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			killed(t, step, dir, stores.All[store](t, dir))
		})
	}
}

func killed(t *testing.T, step, dir string, store stores.Store) {
	chain, err := devnet.Start(t.Context(), devnet.Options{Payers: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	r := newReceiver(t, os.Getenv("T_SECRET"))
	addr := rig.FreeAddr(t)
	o := rig.Options{RPC: chain.URL(), Site: site, Store: store.Caddyfile, App: hooked(r, "{env.T_SECRET}")}
	config, err := rig.Adapt(rig.Caddyfile(o, dir, addr, rig.NewUpstream(t, nil).Addr()))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "caddy.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	_, dead := start(t, path, dir, step)
	buyer := rig.NewBuyer(t, 1)
	buyer.Buy("http://" + addr + "/thing") // which it may survive or not
	select {
	case <-dead:
	case <-time.After(30 * time.Second):
		t.Fatal("the process survived")
	}
	kill, _ := start(t, path, dir, "")
	if a, _ := rig.NewBuyer(t, 2).Buy("http://" + addr + "/another"); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	agree(t, store, r, kill)
}

// agree waits until what was told is what the ledger has.
func agree(t *testing.T, store stores.Store, r *receiver, kill func()) {
	t.Helper()
	var want, got int
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		told := r.told()
		facts, delivered := recorded(t, store)
		want, got = len(facts), 0
		for id := range told {
			if !facts[id] {
				t.Fatalf("%s was told, and the ledger has nothing of it", id)
			}
			got++
		}
		if got == want && delivered == want && want >= 3 {
			kill()
			return
		}
	}
	t.Errorf("%d of %d events were told", got, want)
}

// recorded is what must be told by the ledger's trail, and how many deliveries its log has as delivered.
func recorded(t *testing.T, s stores.Store) (facts map[string]bool, delivered int) {
	t.Helper()
	store, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	entries, err := store.Entries(context.WithoutCancel(t.Context()), ledger.Mark{}, time.Now().Add(time.Hour), 1000)
	if err != nil {
		t.Fatal(err)
	}
	facts = map[string]bool{}
	for _, e := range entries {
		kinds := map[ledger.Event][]string{
			ledger.EventSettle: {"settled"}, ledger.EventDelivered: {"delivered"}, ledger.EventUndelivered: {"undelivered"}, ledger.EventFail: {"failed"},
		}[e.Event]
		if e.Event == ledger.EventUndelivered && e.Refund == ledger.RefundPending {
			kinds = append(kinds, "refund_pending")
		}
		for _, k := range kinds {
			facts[fmt.Sprintf("evt_%s_%d_%s", e.Payment, e.Version, k)] = true
		}
	}
	log, err := store.Objects(t.Context(), "webhook_delivery", "", "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range log {
		if strings.Contains(string(o.Body), `"status":"delivered"`) {
			delivered++
		}
	}
	return facts, delivered
}
