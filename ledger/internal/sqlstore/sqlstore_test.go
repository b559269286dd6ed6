package sqlstore

import (
	"errors"
	"io/fs"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
)

func TestNumbered(t *testing.T) {
	for query, want := range map[string]string{
		"":                             "",
		"SELECT 1":                     "SELECT 1",
		"?":                            "$1",
		"SELECT ?, a FROM b WHERE c>?": "SELECT $1, a FROM b WHERE c>$2",
		"(?,?,?,?,?,?,?,?,?,?,?)":      "($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11)",
	} {
		if got := Numbered(query); got != want {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
}

// What a column gives is what was written, whatever the target held before.
func TestScan(t *testing.T) {
	moment := time.Date(2026, 3, 4, 5, 6, 7, 123456000, time.UTC)
	gotTime, gotNumber, gotFlag := time.Unix(1, 0), uint64(9), true
	gotAmount, gotHash, gotBytes := *uint256.NewInt(7), common.Hash{1}, []byte{1}
	most := new(uint256.Int).SetAllOne()
	hash := common.Hash{31: 5}
	source := []byte{1, 2}
	for _, tt := range []struct {
		name string
		scan func() error
		ok   func() bool
	}{
		{"time", func() error { return Instant{&gotTime}.Scan(Micros(moment)) }, func() bool { return gotTime.Equal(moment) && gotTime.Location() == time.UTC }},
		{"no time", func() error { return Instant{&gotTime}.Scan(Micros(time.Time{})) }, func() bool { return gotTime.IsZero() }}, //nolint:gocritic // a method value would hold what the time was before
		{"number", func() error { return Natural{&gotNumber}.Scan(int64(3)) }, func() bool { return gotNumber == 3 }},
		{"false", func() error { return Boolean{&gotFlag}.Scan(int64(0)) }, func() bool { return !gotFlag }},
		{"true", func() error { return Boolean{&gotFlag}.Scan(int64(1)) }, func() bool { return gotFlag }},
		{"amount", func() error { return Decimal{&gotAmount}.Scan(most.Dec()) }, func() bool { return gotAmount == *most }},
		{"hash", func() error { return Fixed(gotHash[:]).Scan(Octets(hash[:])) }, func() bool { return gotHash == hash }},
		{"no hash", func() error { return Fixed(gotHash[:]).Scan(Octets(make([]byte, 32))) }, func() bool { return gotHash == common.Hash{} }},
		{"no hash, of SQLite's driver", func() error { return Fixed(gotHash[:]).Scan(nil) }, func() bool { return gotHash == common.Hash{} }},
		{"bytes", func() error { return Bytes{&gotBytes}.Scan(source) }, func() bool { source[0] = 9; return slices.Equal(gotBytes, []byte{1, 2}) }},
		{"no bytes", func() error { return Bytes{&gotBytes}.Scan(nil) }, func() bool { return gotBytes == nil }},
	} {
		if err := tt.scan(); err != nil || !tt.ok() {
			t.Errorf("%s: %v, or something else was read", tt.name, err)
		}
	}
}

// What can't have been written is told, not taken for something else.
func TestScanRefuses(t *testing.T) {
	var (
		moment time.Time
		number uint64
		flag   bool
		amount uint256.Int
		hash   common.Hash
		bytes  []byte
	)
	for name, err := range map[string]error{
		"a time of text":          Instant{&moment}.Scan("2026-01-01"),
		"no time":                 Instant{&moment}.Scan(nil),
		"a negative number":       Natural{&number}.Scan(int64(-1)),
		"a number with a point":   Natural{&number}.Scan(1.5),
		"a flag of two":           Boolean{&flag}.Scan(int64(2)),
		"a negative flag":         Boolean{&flag}.Scan(int64(-1)),
		"a flag of text":          Boolean{&flag}.Scan("t"),
		"an amount of 257 bits":   Decimal{&amount}.Scan("115792089237316195423570985008687907853269984665640564039457584007913129639936"),
		"an amount of a number":   Decimal{&amount}.Scan(int64(5)),
		"an amount with a sign":   Decimal{&amount}.Scan("-5"),
		"a hash of 31 bytes":      Fixed(hash[:]).Scan(make([]byte, 31)),
		"a hash of text":          Fixed(hash[:]).Scan("0x00"),
		"bytes that are a number": Bytes{&bytes}.Scan(int64(5)),
	} {
		if !errors.Is(err, ErrSchema) {
			t.Errorf("%s: %v, want ErrSchema", name, err)
		}
	}
}

// A store's own migrations come after the tables, in one directory.
func TestMigrations(t *testing.T) {
	both, err := Migrations(fstest.MapFS{
		"00002_own.sql": {Data: []byte("-- own")}, "README": {Data: []byte("-")},
	})
	if err != nil {
		t.Fatal(err)
	}
	names, err := fs.Glob(both, "*.sql")
	if want := []string{"00001_tables.sql", "00002_own.sql"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("%v, %v, want %v", names, err, want)
	}
	if got, err := fs.ReadFile(both, "00002_own.sql"); err != nil || string(got) != "-- own" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := fs.ReadFile(both, "00001_tables.sql"); err != nil || len(got) == 0 {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := both.Open("00003_none.sql"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want that it does not exist", err)
	}
}

// A mark behind all ids of its time is no UTF-8; PostgreSQL is asked with one that is, and still behind all ids.
func TestMarks(t *testing.T) {
	for _, id := range []string{"", "pay_abcdefg", "pay_zzz7\U0001f600"} {
		if got := valid(id); got != id {
			t.Errorf("%q became %q", id, got)
		}
	}
	if got := valid("\xff"); got <= "pay_zzzzzzzzzzzzzzzzzzzzzzzzzzzz" || got != "\U0010ffff" {
		t.Errorf("%q", got)
	}
}
