package storetest

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/ledger"
)

// another opens a second, empty store of the same kind, with the same clock.
func (f *fixture) another(open Open) *fixture {
	f.Helper()
	b := open(f.T, f.clock.Now)
	f.Cleanup(b.Close)
	return &fixture{T: f.T, ctx: f.ctx, clock: f.clock, b: b}
}

// lived is a store that has seen everything that a store can see.
func lived(t *testing.T, open Open) *fixture {
	f := setup(t, open)
	closed := f.closedPayments()
	f.clock.Add(time.Second)
	kept := f.keptPayments()
	f.crowded2(100)
	f.clock.Add(time.Second)
	f.record(newTransaction(9, 1, 130, kept["settling"].ID)) // dearer
	f.record(newTransaction(9, 2, 131, kept["claimed"].ID, kept["settling"].ID))
	f.record(newTransaction(9, 3, 132))
	f.clock.Add(time.Second)
	f.record(newTransaction(9, 3, 133))
	if err := f.store().AdvanceNonce(f.ctx, 1, account(9), 3); err != nil {
		t.Fatal(err)
	}
	f.age()
	f.anchor()
	f.delivered(f.settled(newPayment(t, 4, 1)), f.clock.Now().Add(time.Hour))
	f.age()
	f.anchor()
	f.claim(newPayment(t, 4, 2), 0) // not anchored
	f.reserve(1, closed["delivered"].ID, "", time.Hour, "")
	if err := f.store().KeepAnswer(f.ctx, hash(1), closed["delivered"].ID, []byte{0, 0xff}, 10*time.Hour); err != nil {
		t.Fatal(err)
	}
	f.reserve(5, kept["paid"].ID, "", time.Hour, "")
	f.reserve(9, kept["paid"].ID, "", time.Minute, "")
	f.revoke(closed["delivered"].ID, f.clock.Now().Add(time.Hour))
	f.revoke(kept["paid"].ID, f.clock.Now().Add(2*time.Hour))
	f.draw(f.wantDraw(3, 1, 7, 50), 7, 7)
	f.draw(f.wantDraw(200, 1, 1, 1), 1, 1)
	f.furnishObjects()
	f.clock.Add(time.Minute)
	return f
}

// crowded2 makes payments of wild texts of several payers.
func (f *fixture) crowded2(first uint64) {
	f.Helper()
	for i := range uint64(12) {
		p := newPayment(f, 5+i%3, first+i)
		p.Binding.URI = "/\x00\xff'\"" + string(rune('a'+i))
		f.settled(p)
	}
}

// parts is the store f cut in pieces, as a copy would send them, the last with Complete.
func (f *fixture) parts(size int) []ledger.Part {
	f.Helper()
	var got []ledger.Part
	for chunk := range slices.Chunk(f.records(), size) {
		got = append(got, ledger.Part{Records: chunk})
	}
	wallets, err := f.store().Wallets(f.ctx)
	if err != nil {
		f.Fatalf("wallets: %v", err)
	}
	for chunk := range slices.Chunk(wallets, size) {
		got = append(got, ledger.Part{Wallets: chunk})
	}
	for chunk := range slices.Chunk(f.reservations(), size) {
		got = append(got, ledger.Part{Reservations: chunk})
	}
	for chunk := range slices.Chunk(f.revoked(0), size) {
		got = append(got, ledger.Part{Revocations: chunk})
	}
	for chunk := range slices.Chunk(slices.Collect(maps.Values(f.allowances())), size) {
		got = append(got, ledger.Part{Allowances: chunk})
	}
	for chunk := range slices.Chunk(slices.Collect(maps.Values(f.objects())), size) {
		got = append(got, ledger.Part{Objects: chunk})
	}
	anchors, err := f.store().Anchors(f.ctx, 0, 1000)
	if err != nil {
		f.Fatalf("anchors: %v", err)
	}
	for chunk := range slices.Chunk(anchors, size) {
		got = append(got, ledger.Part{Anchors: chunk})
	}
	return append(got, ledger.Part{Complete: true})
}

func (f *fixture) reservations() []ledger.Reservation {
	f.Helper()
	var got []ledger.Reservation
	err := f.store().EachReservation(f.ctx, func(r ledger.Reservation) error {
		got = append(got, r)
		return nil
	})
	if err != nil {
		f.Fatalf("reservations: %v", err)
	}
	slices.SortFunc(got, func(a, b ledger.Reservation) int { return a.Key.Cmp(b.Key) })
	return got
}

func (f *fixture) imports(parts ...ledger.Part) {
	f.Helper()
	for i, part := range parts {
		if err := f.store().Import(f.ctx, part); err != nil {
			f.Fatalf("importing part %d: %v", i, err)
		}
	}
}

// equals compares two stores in all that can be asked of them.
func (f *fixture) equals(g *fixture) {
	f.Helper()
	if a, b := f.records(), g.records(); !same(a, b) {
		f.Errorf("records: %s", difference(a, b))
	}
	if a, b := f.reservations(), g.reservations(); !same(a, b) {
		f.Errorf("reservations: %s", difference(a, b))
	}
	if a, b := unnumbered(f.revoked(0)), unnumbered(g.revoked(0)); !same(a, b) {
		f.Errorf("revocations: %s", difference(a, b))
	}
	if a, b := f.allowances(), g.allowances(); !same(a, b) {
		f.Errorf("allowances: %s", difference(a, b))
	}
	if a, b := f.objects(), g.objects(); !same(a, b) || len(a) == 0 {
		f.Errorf("%d objects: %s", len(a), difference(a, b))
	}
	far := f.clock.Now().Add(time.Hour)
	if a, b := f.entries(far, 50), g.entries(far, 50); !same(a, b) {
		f.Errorf("entries: %s", difference(a, b))
	}
	for name, read := range map[string]func(s ledger.Store) (any, error){
		"wallets": func(s ledger.Store) (any, error) { return s.Wallets(f.ctx) },
		"anchors": func(s ledger.Store) (any, error) { return s.Anchors(f.ctx, 0, 1000) },
		"counts":  func(s ledger.Store) (any, error) { return s.Counts(f.ctx) },
		"list":    func(s ledger.Store) (any, error) { return s.List(f.ctx, ledger.Query{Limit: 1000}) },
	} {
		a, err := read(f.store())
		b, err2 := read(g.store())
		if err != nil || err2 != nil || !same(a, b) {
			f.Errorf("%s: %s; %v, %v", name, difference(a, b), err, err2)
		}
	}
}

// What one store exports, another of its kind has afterwards, all of it, and goes on from there.
func testImport(t *testing.T, open Open, _ Options) {
	from := lived(t, open)
	to := from.another(open)
	parts := from.parts(7)
	to.imports(parts[:len(parts)-1]...)
	to.equals(from)
	from.age()
	to.refusesWrites()
	to.equals(from)
	to.b.Crash()
	if err := to.store().Ping(to.ctx); !errors.Is(err, ledger.ErrIncomplete) {
		t.Errorf("ping after a crash: %v, want ErrIncomplete", err)
	}
	to.refusesWrites()
	to.imports(parts[len(parts)-1])
	to.equals(from)
	if err := to.store().Ping(to.ctx); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := to.store().Import(to.ctx, parts[0]); !errors.Is(err, ledger.ErrExists) {
		t.Errorf("import into a store in use: %v, want ErrExists", err)
	}
	to.goesOn(from)
}

// goesOn does the same to both stores, and finds them alike: what was imported is worked on like what was made here.
func (f *fixture) goesOn(from *fixture) {
	f.Helper()
	due := map[bool][]ledger.Payment{}
	offer := newPayment(f, 4, 500)
	for here, x := range map[bool]*fixture{true: f, false: from} {
		leased, err := x.store().Lease(x.ctx, 1000, time.Hour)
		if err != nil {
			f.Fatalf("lease: %v", err)
		}
		slices.SortFunc(leased, func(a, b ledger.Payment) int { return cmp.Compare(a.ID, b.ID) })
		due[here] = leased
		for _, p := range leased {
			if _, err := x.store().Claim(x.ctx, withID(f, p), ledger.Change{}); !errors.Is(err, ledger.ErrExists) {
				f.Errorf("claimed again: %v", err)
			}
			if p.Unserved() {
				x.update(p, ledger.Change{Event: ledger.EventTake, Hold: time.Minute})
			}
		}
		p := x.claim(offer, 0)
		next, _ := x.nonce(9)
		x.record(newTransaction(9, next, 200, p.ID))
		x.record(newTransaction(9, next-1, 133)) // the same again
		x.reserve(1, "pay_x", "", time.Hour, x.reservations()[0].Payment)
		x.put(x.objects()["key o0"])
		x.put(newObject("key", "new", "g", "1"))
	}
	f.age()
	f.anchor()
	from.anchor()
	if len(due[true]) == 0 || !slices.Equal(due[true], due[false]) {
		f.Errorf("due are %v, want %v", ids(due[true]), ids(due[false]))
	}
	f.equals(from)
	f.wholeLedger(common.Hash{})
}

// Parts may come again, in any size, and before the ones that they belong to; what differs is refused, and changes nothing.
func testImportAgain(t *testing.T, open Open, _ Options) {
	from := lived(t, open)
	to := from.another(open)
	parts := from.parts(5)
	whole := parts[:len(parts)-1]
	to.imports(whole[:len(whole)/2]...)
	to.imports(whole...)
	to.imports(from.parts(1000)[:4]...)
	to.equals(from)
	records, reservations := from.records(), from.reservations()
	wallets, err := from.store().Wallets(from.ctx)
	if err != nil {
		t.Fatal(err)
	}
	// A record that went on after it was copied, and one whose money is claimed to be elsewhere.
	p := from.update(records[0].Payment, ledger.Change{Event: ledger.EventFinal})
	later := from.records()[0]
	other := records[1]
	other.Payment.Transaction = hash(99)
	wallets[0].NextNonce++
	reservations[0].Payment = "pay_other"
	allowance := from.allowances()[hash(3).Hex()]
	allowance.Used.SetUint64(6)
	object, older, odd := from.objects()["key o0"], from.objects()["key o0"], from.objects()["key o0"]
	object.Body, older.Version, odd.Kind = []byte("1"), 1, "Odd"
	anchor := ledger.Anchor{Sequence: 1}
	fresh := from.claim(newPayment(t, 6, 700), 0)
	freshRecord := ledger.Record{Payment: fresh, Trail: from.trail(fresh.ID)}
	clash := freshRecord
	clash.Payment.ID = withID(t, fresh).ID
	for name, part := range map[string]ledger.Part{
		"a record that went on": {Records: []ledger.Record{later}}, "a changed record": {Records: []ledger.Record{other}},
		"a changed wallet": {Wallets: wallets[:1]}, "a changed reservation": {Reservations: reservations[:1]},
		"a changed allowance":            {Allowances: []ledger.Allowance{allowance}},
		"a changed object":               {Objects: []ledger.Object{object}},
		"an older object":                {Objects: []ledger.Object{older}},
		"an anchor that does not follow": {Anchors: []ledger.Anchor{anchor}},
	} {
		if err := to.store().Import(to.ctx, part); !errors.Is(err, ledger.ErrConflict) {
			t.Errorf("%s: %v, want ErrConflict", name, err)
		}
	}
	if got := to.read(p.ID); got != records[0].Payment {
		t.Errorf("the payment changed: %+v", got)
	}
	if err := to.store().Import(to.ctx, ledger.Part{Objects: []ledger.Object{odd}}); !errors.Is(err, ledger.ErrObject) {
		t.Errorf("an object that can be none was imported: %v", err)
	}
	to.hasObject(from.objects()["key o0"])
	to.imports(ledger.Part{Records: []ledger.Record{freshRecord}})
	if err := to.store().Import(to.ctx, ledger.Part{Records: []ledger.Record{clash}}); err == nil {
		t.Error("two payments of one authorization were imported")
	}
	to.imports(ledger.Part{Complete: true})
	if got := to.read(fresh.ID); got != fresh {
		t.Errorf("imported %+v, want %+v", got, fresh)
	}
}

func (f *fixture) trail(id string) []ledger.Entry {
	f.Helper()
	trail, err := f.store().Audit(f.ctx, id)
	if err != nil {
		f.Fatalf("audit: %v", err)
	}
	return trail
}

// A store that is in use takes nothing, whatever it has; an empty one may be completed with nothing at all.
func testImportRefuses(t *testing.T, open Open, _ Options) {
	from := setup(t, open)
	from.claim(newPayment(t, 1, 1), 0)
	parts := from.parts(9)
	for name, use := range map[string]func(*fixture) error{
		"a payment":     func(x *fixture) error { x.claim(newPayment(t, 2, 1), 0); return nil },
		"a wallet":      func(x *fixture) error { return x.store().AdvanceNonce(x.ctx, 1, account(1), 1) },
		"a reservation": func(x *fixture) error { x.reserve(1, "pay_a", "", time.Hour, ""); return nil },
		"an allowance":  func(x *fixture) error { x.draw(x.wantDraw(1, 1, 1, 9), 1, 1); return nil },
		"an object":     func(x *fixture) error { x.put(newObject("key", "a", "", "1")); return nil },
	} {
		to := from.another(open)
		if err := to.store().Ping(to.ctx); err != nil { // that is no use
			t.Fatal(err)
		}
		if err := use(to); err != nil {
			t.Fatal(err)
		}
		for i, part := range append(parts, ledger.Part{}) {
			if err := to.store().Import(to.ctx, part); !errors.Is(err, ledger.ErrExists) {
				t.Errorf("%s: part %d: %v, want ErrExists", name, i, err)
			}
		}
		if err := to.store().Ping(to.ctx); err != nil {
			t.Errorf("%s: ping: %v", name, err)
		}
	}
	empty := from.another(open)
	empty.imports(ledger.Part{})
	if err := empty.store().Ping(empty.ctx); !errors.Is(err, ledger.ErrIncomplete) {
		t.Errorf("an empty part begins a copy: %v", err)
	}
	if _, err := empty.store().Claim(empty.ctx, newPayment(t, 1, 1), ledger.Change{}); !errors.Is(err, ledger.ErrIncomplete) {
		t.Errorf("claim: %v", err)
	}
	empty.imports(ledger.Part{Complete: true})
	empty.claim(newPayment(t, 1, 1), 0)
}

// An import that crashes at any step is whole records, no more than were sent, and goes on.
func testImportCrash(t *testing.T, open Open, o Options) {
	from := lived(t, open)
	to := from.another(open)
	parts := from.parts(6)
	want := map[string]ledger.Record{}
	for _, r := range from.records() {
		want[r.Payment.ID] = r
	}
	stride := 5
	if o.Light {
		stride = 17
	}
	crashes := 0
	for i, part := range parts[:len(parts)-1] {
		for steps := i % stride; ; steps += stride {
			inside := to.b.CrashDuring(steps, func(s ledger.Store) { _ = s.Import(to.ctx, part) })
			for _, r := range to.records() {
				if !same(r, want[r.Payment.ID]) {
					t.Fatalf("after a crash in part %d: %+v\nwant %+v", i, r, want[r.Payment.ID])
				}
			}
			if err := to.store().Ping(to.ctx); !errors.Is(err, ledger.ErrIncomplete) && (i > 0 || err != nil) {
				t.Fatalf("ping after a crash in part %d: %v, want ErrIncomplete", i, err)
			}
			if !inside {
				break
			}
			crashes++
		}
		to.imports(part)
	}
	to.imports(parts[len(parts)-1])
	to.equals(from)
	t.Logf("%d crashes within", crashes)
}

// What was archived by a sweep is exported like everything else.
func testImportSwept(t *testing.T, open Open, o Options) {
	from := lived(t, open)
	from.clock.Add(2 * month)
	from.sweep(month, 100)
	to := from.another(open)
	to.imports(from.parts(9)...)
	to.equals(from)
	if n := to.sweep(month, 100); n == 0 && !o.Forgets {
		t.Error("what was imported can't be archived")
	}
	to.equals(from)
}

// A ledger that moves to a store of another kind, and from there to one of this kind, stays the same to the last byte.
func testCopy(t *testing.T, open Open, o Options) {
	from := lived(t, open)
	other := &fixture{T: t, ctx: from.ctx, clock: from.clock, b: &elsewhere{m: NewMemory(from.clock.Now, o.Forgets)}}
	to := from.another(open)
	for _, way := range [][2]*fixture{{from, other}, {other, to}} {
		r, err := ledger.Copy(from.ctx, way[0].store(), way[1].store(), ledger.CopyOptions{PageSize: 5})
		if err != nil || r.Audit.Found != 0 || r.Copied != r.Payments || r.Payments != int64(len(from.records())) {
			t.Fatalf("copy: %+v, %v", r, err)
		}
		way[1].equals(from)
		if a, b := way[1].export(), from.export(); a != b {
			t.Errorf("the exports differ: %s", difference(a, b))
		}
	}
	if r, err := ledger.Copy(from.ctx, from.store(), to.store(), ledger.CopyOptions{}); err != nil || r.Copied != 0 {
		t.Errorf("copy of what is copied: %+v, %v", r, err)
	}
	to.goesOn(from)
}

func (f *fixture) export() string {
	f.Helper()
	var b strings.Builder
	if _, err := ledger.Export(f.ctx, f.store(), &b, ledger.ExportOptions{}); err != nil {
		f.Fatalf("export: %v", err)
	}
	r, err := ledger.VerifyExport(f.ctx, strings.NewReader(b.String()), ledger.VerifyOptions{})
	if err != nil || r.Found != 0 {
		f.Errorf("verifying the export: %+v, %v", r, err)
	}
	return b.String()
}

// elsewhere is a Memory in a fixture. It does not crash.
type elsewhere struct {
	Backend
	m *Memory
}

func (e *elsewhere) Store() ledger.Store { return e.m }
