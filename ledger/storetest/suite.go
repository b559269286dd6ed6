// Package storetest is the suite that every ledger.Store must pass: the contract of each method, callers
// that compete, and a model that runs against the real store, which crashes at every step and is opened again.
//
// It knows no store. A store's own tests call Run with a way to make one, and to crash it.
package storetest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/ledger"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Backend is a store under test that can be made to crash.
type Backend interface {
	// Store is the store as it stands. A crash replaces it.
	Store() ledger.Store
	// Crash ends the store as if its process had been killed at this moment, whatever it is doing, and opens
	// what it left behind. Calls under way must return, with anything; what they return after Crash was
	// called counts for nothing.
	Crash()
	// CrashDuring runs f, which calls the store, and crashes the store after it has made steps steps within
	// f: statements, commands, round trips, whatever can be told apart by a crash. It reports whether that
	// happened before f was answered; if f needed fewer steps, the crash comes after it.
	CrashDuring(steps int, f func(ledger.Store)) (inside bool)
	// Close ends it for good.
	Close()
}

// Instances is a Backend whose store several instances can use at the same time, and that is every one.
type Instances interface {
	Backend
	// Second is the same data as another instance sees it: over connections of its own. A crash ends it too, and
	// so does Close; after a crash it is asked for again.
	Second() ledger.Store
}

// Options say what a store does of that in which stores may differ, and how much the suite may cost.
type Options struct {
	// Forgets: Sweep forgets payments that are closed and old. Otherwise it keeps them, with all that is theirs.
	Forgets bool
	// Light makes the heavy tests smaller, for a second arrangement of a store whose code has passed already.
	Light bool
}

// Open makes an empty store whose clock is now. It fails the test where it can't.
type Open func(t *testing.T, now func() time.Time) Backend

// Run runs the suite. At most one Options is given.
func Run(t *testing.T, open Open, options ...Options) {
	var o Options
	if len(options) > 0 {
		o = options[0]
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, open) })
	}
	for _, tt := range testsWithOptions {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, open, o) })
	}
}

var tests = []struct {
	name string
	run  func(t *testing.T, open Open)
}{
	{"Claim", testClaim},
	{"ClaimTwice", testClaimTwice},
	{"Update", testUpdate},
	{"UpdateManyAtOnce", testUpdateMany},
	{"Hold", testHold},
	{"Record", testRecord},
	{"RecordRefuses", testRecordRefuses},
	{"RecordReplacement", testReplacement},
	{"Nonces", testNonces},
	{"Unserved", testUnserved},
	{"UnservedLikeness", testUnservedLikeness},
	{"Facilitated", testFacilitated},
	{"Refunds", testRefunds},
	{"TransfersBack", testTransfersBack},
	{"LivePlans", testLivePlans},
	{"Lease", testLease},
	{"Recheck", testRecheck},
	{"Counts", testCounts},
	{"NotFound", testNotFound},
	{"Extremes", testExtremes},
	{"Ping", testPing},
	{"Contexts", testContexts},
	{"Close", testClose},
	{"CompeteForOneAuthorization", testOneAuthorization},
	{"ClaimsInParallel", testManyClaims},
	{"CompeteForOneVersion", testOneVersion},
	{"CompeteForOneHold", testOneHold},
	{"CompeteForOneNonce", testOneNonce},
	{"CompeteForLeases", testCompetingLeases},
	{"ReadYourWrites", testReadYourWrites},
}

var testsWithOptions = []struct {
	name string
	run  func(t *testing.T, open Open, o Options)
}{
	{"Reserve", testReserve},
	{"KeepAnswer", testKeepAnswer},
	{"Revoke", testRevoke},
	{"RevocationNumbers", testRevocationNumbers},
	{"FollowRevocations", testFollowRevocations},
	{"RevokeCrash", testRevokeCrash},
	{"ImportRevocations", testImportRevocations},
	{"Credit", testCredit},
	{"CreditNotClaimed", testCreditNotClaimed},
	{"CreditGivenBack", testCreditGivenBack},
	{"CreditLapses", testCreditLapses},
	{"CreditCovers", testCreditCovers},
	{"InstancesBorrow", testInstancesBorrow},
	{"CompeteForOneReservation", testOneReservation},
	{"CompeteForOneAnswer", testOneAnswer},
	{"Draw", testDraw},
	{"DrawRefuses", testDrawRefuses},
	{"DrawCrash", testDrawCrash},
	{"InstancesDraw", testInstancesDraw},
	{"Object", testObject},
	{"ObjectRules", testObjectRules},
	{"ObjectExpiry", testObjectExpiry},
	{"ObjectLists", testObjectLists},
	{"DueObjects", testDueObjects},
	{"CompeteForOneObject", testOneObject},
	{"ObjectCrash", testObjectCrash},
	{"Quarantine", testQuarantine},
	{"Texts", testTexts},
	{"Now", testNow},
	{"List", testList},
	{"Entries", testEntries},
	{"Records", testRecords},
	{"Anchors", testAnchors},
	{"AnchorsRefuse", testAnchorsRefuse},
	{"AnchorsAndClock", testAnchorsAndClock},
	{"AnchorsUnderLoad", testAnchorsUnderLoad},
	{"CompeteForOneAnchor", testOneAnchor},
	{"SweepReservations", testSweepReservations},
	{"SweepAllowances", testSweepAllowances},
	{"SweepObjects", testSweepObjects},
	{"SweepPayments", testSweepPayments},
	{"SweepAndReopen", testSweepAndReopen},
	{"SweepUnderLoad", testSweepUnderLoad},
	{"Import", testImport},
	{"ImportAgain", testImportAgain},
	{"ImportRefuses", testImportRefuses},
	{"ImportCrash", testImportCrash},
	{"ImportSwept", testImportSwept},
	{"Copy", testCopy},
	{"InstancesSeeEachOther", testInstancesSeeEachOther},
	{"InstancesCompeteForAuthorizations", testInstancesClaim},
	{"InstancesCompeteForNonces", testInstancesNonce},
	{"InstancesCompeteForLeases", testInstancesLease},
	{"InstancesCompeteForOneHold", testInstancesHold},
	{"CrashUnderLoad", testCrashUnderLoad},
	{"Workers", testWorkers},
	{"Model", testModel},
}

// clock is a time that only the test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock {
	// Not in whole microseconds: a store must cut it itself.
	return &clock{now: time.Date(2026, 3, 4, 5, 6, 7, 123456789, time.UTC)}
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// fixture is a store with its clock, in a test that fails at the first error.
type fixture struct {
	*testing.T
	ctx   context.Context
	clock *clock
	b     Backend
}

func setup(t *testing.T, open Open) *fixture {
	t.Helper()
	c := newClock()
	b := open(t, c.Now)
	t.Cleanup(b.Close)
	return &fixture{T: t, ctx: t.Context(), clock: c, b: b}
}

func (f *fixture) store() ledger.Store { return f.b.Store() }

// fail is what the helpers need of a test; *rapid.T has it too.
type fail interface {
	Helper()
	Fatalf(format string, args ...any)
}

func newID(t fail, payer uint64) string {
	t.Helper()
	id, err := ledger.NewID(rand.Reader, account(payer))
	if err != nil {
		t.Fatalf("id: %v", err)
	}
	return id
}

func account(n uint64) (a common.Address) {
	a[0] = 0xac
	binary.BigEndian.PutUint64(a[12:], n)
	return a
}

func hash(n uint64) (h common.Hash) {
	h[0] = 0x4a
	binary.BigEndian.PutUint64(h[24:], n)
	return h
}

var usdc = common.HexToAddress("0x036CbD53842c5426634e7929541eC2318f3dCF7e")

// newPayment is the n-th authorization of payer, to be claimed.
func newPayment(t fail, payer, n uint64) ledger.Payment {
	t.Helper()
	return ledger.Payment{
		ID: newID(t, payer),
		AuthorizationID: x402.AuthorizationID{
			ChainID: 84532, Asset: usdc, Payer: account(payer), Nonce: hash(n),
		},
		PayTo:       account(1 << 40),
		Amount:      *uint256.NewInt(10_000 + n),
		ValidBefore: 1_900_000_000,
		HeaderHash:  hash(n << 32),
		Binding: ledger.Binding{
			Route: "weather", Plan: "", Method: "GET", Host: "api.example.com", URI: "/weather/today?q=%2F&x=\xff",
		},
		Flow:       ledger.FlowUpfront,
		ClaimBlock: 17,
	}
}

// payer makes p another's.
func payer(p *ledger.Payment, of common.Address) {
	p.Payer = of
	p.ID = "pay_" + ledger.Shard(of) + strings.TrimPrefix(p.ID, "pay_")[2:]
}

// newTransaction is the n-th, whatever it carries.
func newTransaction(wallet, nonce, n uint64, payments ...string) ledger.Transaction {
	raw := binary.BigEndian.AppendUint64([]byte{2, 0xff, 0}, n)
	return ledger.Transaction{
		ChainID: 84532, Wallet: account(wallet), Nonce: nonce, Hash: crypto.Keccak256Hash(raw), Raw: raw, Payments: payments,
	}
}

// claim claims a payment that must be free.
func (f *fixture) claim(p ledger.Payment, hold time.Duration) ledger.Payment {
	f.Helper()
	got, err := f.store().Claim(f.ctx, p, ledger.Change{Actor: "request", Hold: hold})
	if err != nil {
		f.Fatalf("claim: %v", err)
	}
	return got
}

// update makes changes that must be allowed.
func (f *fixture) update(p ledger.Payment, changes ...ledger.Change) ledger.Payment {
	f.Helper()
	got, err := f.store().Update(f.ctx, p.ID, p.Version, changes...)
	if err != nil {
		f.Fatalf("update: %v", err)
	}
	return got
}

func (f *fixture) record(t ledger.Transaction) {
	f.Helper()
	if err := f.store().Record(f.ctx, t, "request"); err != nil {
		f.Fatalf("record: %v", err)
	}
}

// read reads a payment back and checks its trail.
func (f *fixture) read(id string) ledger.Payment {
	f.Helper()
	return read(f.ctx, f, f.store(), id)
}

func read(ctx context.Context, t fail, s ledger.Store, id string) ledger.Payment {
	t.Helper()
	p, err := s.Payment(ctx, id)
	if err != nil {
		t.Fatalf("payment %s: %v", id, err)
	}
	trail, err := s.Audit(ctx, id)
	if err != nil {
		t.Fatalf("audit of %s: %v", id, err)
	}
	if err := ledger.VerifyAudit(&p, trail); err != nil {
		t.Fatalf("%v", err)
	}
	return p
}

// settled claims a payment and brings it to settled.
func (f *fixture) settled(p ledger.Payment) ledger.Payment {
	f.Helper()
	return f.update(f.claim(p, 0), ledger.Change{Event: ledger.EventSettle, Actor: "request", Transaction: hash(1), Block: 18, BlockHash: hash(2)})
}

// delivered brings a settled payment to delivered.
func (f *fixture) delivered(p ledger.Payment, planUntil time.Time) ledger.Payment {
	f.Helper()
	return f.update(p,
		ledger.Change{Event: ledger.EventDeliver, Actor: "request", Fence: p.Hold.Fence, Hold: time.Minute},
		ledger.Change{Event: ledger.EventDelivered, Actor: "request", Fence: p.Hold.Fence, PlanUntil: planUntil})
}

func ids(ps []ledger.Payment) []string {
	got := make([]string, 0, len(ps))
	for _, p := range ps {
		got = append(got, p.ID)
	}
	return got
}

func sameIDs(ps []ledger.Payment, want ...string) bool { return slices.Equal(ids(ps), want) }
