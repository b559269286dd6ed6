package e2e

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/paywall"
	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/signer"
	"github.com/caddy-x402/caddy-x402/settlement/wallet"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// signed is a payment that a test made by hand.
type signed struct {
	buyer  *rig.Buyer
	url    string
	header string
	id     x402.AuthorizationID
}

func signOne(t *testing.T, b *rig.Buyer, url string) signed {
	t.Helper()
	o := b.Offer(url)
	a, sig := b.Authorize(o.Accepts[0])
	return signed{b, url, rig.Encode(t, o.Pay(o.Accepts[0], &a, sig)), a.ID(devnet.ChainID, devnet.TokenAddress)}
}

func (s signed) send() rig.Answer { return s.buyer.Get(s.url, x402.HeaderSignature, s.header) }

// buyAll lets n buyers buy one thing each, and demands that they get it.
func buyAll(t *testing.T, r *rig.Rig, first, n int) []signed {
	t.Helper()
	var all []signed
	for i := first; i < first+n; i++ {
		s := signOne(t, rig.NewBuyer(t, i), r.URL("/bought"))
		if a := s.send(); a.Status != http.StatusOK {
			t.Fatalf("buyer %d: %d %v %s", i, a.Status, a.Err, a.Body)
		}
		all = append(all, s)
	}
	return all
}

// unplug stops Caddy, so that the ledger's file lies still.
func unplug(t *testing.T) {
	t.Helper()
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
}

// copyLedger keeps a copy of the ledger's files; restore puts it back, as whoever restores a backup does. Caddy must be stopped.
func copyLedger(t *testing.T, r *rig.Rig) (restore func()) {
	t.Helper()
	path := filepath.Join(r.Dir, "ledger.db")
	copies := map[string][]byte{}
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + suffix)
		if err == nil {
			copies[path+suffix] = b
		} else if !errors.Is(err, os.ErrNotExist) || suffix == "" {
			t.Fatal(err)
		}
	}
	return func() {
		t.Helper()
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		for name, b := range copies {
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// read gives what the ledger says of a payment, nil if it does not know it, and checks its trail.
func (s signed) read(t *testing.T, store ledger.Store) *ledger.Payment {
	t.Helper()
	p, err := store.ByAuthorization(t.Context(), s.id)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 10 { // the trail may grow meanwhile
		trail, err := store.Audit(t.Context(), p.ID)
		if err != nil {
			t.Fatal(err)
		}
		if uint64(len(trail)) == p.Version {
			if err := ledger.VerifyAudit(&p, trail); err != nil {
				t.Error(err)
			}
			return &p
		}
		if p, err = store.Payment(t.Context(), p.ID); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("a payment does not come to rest")
	return nil
}

// exactly demands that the ledger holds these payments and no other, and that what it says was settled is what the seller
// got (invariant I2).
func exactly(t *testing.T, r *rig.Rig, store ledger.Store, all []signed, want map[ledger.State]int64) {
	t.Helper()
	var sum uint256.Int
	for _, s := range all {
		if p := s.read(t, store); p != nil && p.Settlement == ledger.Settled {
			sum.Add(&sum, &p.Amount)
		}
	}
	if !sum.Eq(r.Balance(rig.PayTo)) {
		t.Errorf("the ledger's payments are worth %s, the seller got %d", &sum, r.Earned())
	}
	counts, err := store.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range ledger.States() {
		if counts[state] != want[state] {
			t.Errorf("%d payments are %s, want %d", counts[state], state, want[state])
		}
	}
}

// secondEngine is another instance on the same ledger, wallet and chain.
func secondEngine(t *testing.T, r *rig.Rig, store ledger.Store) {
	t.Helper()
	client, err := chain.New(chain.Config{Endpoints: []string{r.Chain.URL()}, ChainID: devnet.ChainID})
	if err != nil {
		t.Fatal(err)
	}
	key, err := signer.NewLocal(devnet.Developer(0).Key)
	if err != nil {
		t.Fatal(err)
	}
	w, err := wallet.New(wallet.Config{Network: devnet.Network(), Signers: []wallet.Signer{key}, Chain: client, Journal: journalOf{store}})
	if err != nil {
		t.Fatal(err)
	}
	e := paywall.NewEngine(store, paywall.Settings{
		Payees:         []*paywall.Payee{{Network: devnet.Network(), PayTo: rig.PayTo, Settler: w}},
		ReconcileEvery: 200 * time.Millisecond,
	})
	t.Cleanup(func() {
		if err := errors.Join(e.Close(), w.Close(), client.Close()); err != nil {
			t.Error(err)
		}
	})
}

// journalOf is a ledger as its wallets see it.
type journalOf struct{ ledger.Store }

func (j journalOf) Record(ctx context.Context, t settlement.Transaction) error {
	return j.Store.Record(ctx, ledger.Transaction{
		ChainID: t.ChainID, Wallet: t.Wallet, Nonce: t.Nonce, Hash: t.Hash, Raw: t.Raw, Payments: t.Payments,
	}, "wallet")
}

func (j journalOf) Advance(ctx context.Context, chainID uint64, wallet common.Address, to uint64) error {
	return j.AdvanceNonce(ctx, chainID, wallet, to)
}

func (j journalOf) Transactions(ctx context.Context, payment string) ([]settlement.Transaction, error) {
	list, err := j.Store.Transactions(ctx, payment)
	var all []settlement.Transaction
	for _, t := range list {
		all = append(all, settlement.Transaction{
			ChainID: t.ChainID, Wallet: t.Wallet, Nonce: t.Nonce, Hash: t.Hash, Raw: t.Raw, Payments: t.Payments, CreatedAt: t.CreatedAt,
		})
	}
	return all, err
}

// The ledger was restored from an older copy. Whoever paid since and sends the same header again is refused, and nothing is
// served or credited a second time; what was paid is found on the chain by two instances at once, and waits in
// quarantine, each payment once, with its money accounted for. Business goes on.
func TestLedgerRestoredFromACopy(t *testing.T) {
	o := rig.Options{App: "interval 200ms"}
	r := rig.New(t, o)
	kept := buyAll(t, r, 0, 2)
	unplug(t)
	restore := copyLedger(t, r)
	r.Load(o)
	lost := buyAll(t, r, 2, 5)
	unplug(t)
	restore()
	w := watch(r)

	store := openLedger(t, r)
	for _, s := range lost {
		if s.read(t, store) != nil {
			t.Fatal("the copy knows of what came after it")
		}
	}
	loaded := make(chan error, 1)
	go func() { loaded <- r.TryLoad(o) }()
	secondEngine(t, r, store)
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	all := slices.Concat(kept, lost)
	for _, s := range all {
		refused(t, "the same header again", s.send(), x402.ReasonNonceUsed)
	}
	for _, s := range lost {
		waitFor(t, func() bool { p := s.read(t, store); return p != nil && p.Final })
		p := s.read(t, store)
		if p.State() != ledger.StateRefundFailed || p.Reason != ledger.ReasonQuarantine || p.Delivery != ledger.Undelivered ||
			p.PayTo != rig.PayTo || p.Amount.Uint64() != cent || p.Transaction == (common.Hash{}) || p.ValidBefore == 0 || p.Open() {
			t.Errorf("imported as %+v", p)
		}
		refused(t, "the same header, in quarantine", s.send(), x402.ReasonNonceUsed)
		if a := s.buyer.Get(r.URL("/x402/payments/" + p.ID)); a.Status != http.StatusOK || !strings.Contains(a.Body, `"REFUND_FAILED"`) {
			t.Errorf("its status: %d %s", a.Status, a.Body)
		}
	}
	w.nothing(t, "restored")
	exactly(t, r, store, all, map[ledger.State]int64{ledger.StateDelivered: 2, ledger.StateRefundFailed: 5})

	// A payer whose payment waits there pays and is served as ever.
	more := signOne(t, lost[0].buyer, r.URL("/bought"))
	if a := more.send(); a.Status != http.StatusOK {
		t.Fatalf("a new payment: %d %s", a.Status, a.Body)
	}
	w.seen(t, "a new payment", 1, cent)
	exactly(t, r, store, append(all, more), map[ledger.State]int64{ledger.StateDelivered: 3, ledger.StateRefundFailed: 5})
}

// The claim was lost while its transaction waited for a block. Its payer comes again: there is one transfer, one delivery and
// one payment in the ledger, whichever transaction is mined; another one whose payer does not come is found.
func TestLostClaimIsMadeAgain(t *testing.T) {
	o := rig.Options{App: "interval 200ms\nsettle_timeout 5s"}
	r := rig.New(t, o)
	kept := buyAll(t, r, 0, 1)
	unplug(t)
	restore := copyLedger(t, r)
	r.Load(o)
	gone, back := signOne(t, rig.NewBuyer(t, 1), r.URL("/gone")), signOne(t, rig.NewBuyer(t, 2), r.URL("/back"))
	r.Chain.Stall()
	t.Cleanup(r.Chain.Resume)
	for _, s := range []signed{gone, back} {
		leave(t, r, s.buyer, http.MethodGet, s.url, "", x402.HeaderSignature, s.header)
	}
	unplug(t)
	restore()
	w := watch(r)
	r.Load(o)
	store := openLedger(t, r)
	answer := make(chan rig.Answer, 1)
	go func() { answer <- back.send() }()
	waitFor(t, func() bool { p := back.read(t, store); return p != nil && p.Settlement == ledger.Settling })
	r.Chain.Resume()
	a := <-answer
	waitFor(t, func() bool { // whoever is told to come again does
		if a.Status == http.StatusServiceUnavailable {
			a = back.send()
		}
		return a.Status != http.StatusServiceUnavailable
	})
	if a.Status != http.StatusOK {
		t.Errorf("the payer that came again: %d %v %s", a.Status, a.Err, a.Body)
	}
	waitFor(t, func() bool { return r.Earned() == 3*cent })
	w.seen(t, "both are paid, one came again", 1, 2*cent)
	refused(t, "once more", back.send(), x402.ReasonNonceUsed)
	waitFor(t, func() bool { p := gone.read(t, store); return p != nil && p.Reason == ledger.ReasonQuarantine })
	refused(t, "the other one", gone.send(), x402.ReasonNonceUsed)
	w.nothing(t, "afterwards")
	exactly(t, r, store, append(kept, gone, back), map[ledger.State]int64{ledger.StateDelivered: 2, ledger.StateRefundFailed: 1})
}

// A ledger that was lost altogether, beside a wallet that was used: what was paid lately is found.
func TestLedgerLostAltogether(t *testing.T) {
	o := rig.Options{App: "interval 200ms"}
	r := rig.New(t, o)
	lost := buyAll(t, r, 0, 3)
	unplug(t)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(filepath.Join(r.Dir, "ledger.db"+suffix))
	}
	w := watch(r)
	r.Load(o)
	store := openLedger(t, r)
	for _, s := range lost {
		refused(t, "the same header again", s.send(), x402.ReasonNonceUsed)
		waitFor(t, func() bool { return s.read(t, store) != nil })
	}
	w.nothing(t, "a new ledger")
	exactly(t, r, store, lost, map[ledger.State]int64{ledger.StateRefundFailed: 3})
	more := buyAll(t, r, 3, 1)
	exactly(t, r, store, append(lost, more...), map[ledger.State]int64{ledger.StateRefundFailed: 3, ledger.StateDelivered: 1})
}
