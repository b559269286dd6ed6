package multicall_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/settlement/multicall"
)

// contract is the interface of Multicall3 as go-ethereum's own encoder reads it.
var contract = mustABI(`[{"type":"function","name":"aggregate3","stateMutability":"payable",
	"inputs":[{"name":"calls","type":"tuple[]","components":[
		{"name":"target","type":"address"},{"name":"allowFailure","type":"bool"},{"name":"callData","type":"bytes"}]}],
	"outputs":[{"name":"returnData","type":"tuple[]","components":[
		{"name":"success","type":"bool"},{"name":"returnData","type":"bytes"}]}]}]`)

func mustABI(s string) abi.ABI {
	parsed, err := abi.JSON(strings.NewReader(s))
	if err != nil {
		panic(err)
	}
	return parsed
}

// The contract's tuples as go-ethereum's encoder wants them: names and order are the interface's.
type (
	abiCall struct {
		Target       common.Address
		AllowFailure bool
		CallData     []byte
	}
	abiResult struct {
		Success    bool
		ReturnData []byte
	}
)

type fataler interface {
	Helper()
	Fatal(...any)
}

func packCalls(t fataler, calls []multicall.Call) []byte {
	t.Helper()
	theirs := make([]abiCall, len(calls))
	for i, c := range calls {
		theirs[i] = abiCall{c.Target, c.AllowFailure, c.Data}
	}
	data, err := contract.Pack("aggregate3", theirs)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func packResults(t fataler, results []multicall.Result) []byte {
	t.Helper()
	theirs := make([]abiResult, len(results))
	for i, r := range results {
		theirs[i] = abiResult{r.Success, r.Data}
	}
	ret, err := contract.Methods["aggregate3"].Outputs.Pack(theirs)
	if err != nil {
		t.Fatal(err)
	}
	return ret
}

func sameCalls(a, b []multicall.Call) bool {
	return slices.EqualFunc(a, b, func(a, b multicall.Call) bool {
		return a.Target == b.Target && a.AllowFailure == b.AllowFailure && bytes.Equal(a.Data, b.Data)
	})
}

func sameResults(a, b []multicall.Result) bool {
	return slices.EqualFunc(a, b, func(a, b multicall.Result) bool {
		return a.Success == b.Success && bytes.Equal(a.Data, b.Data)
	})
}

var (
	alice = common.HexToAddress("0x1111111111111111111111111111111111111111")
	bob   = common.HexToAddress("0xffffffffffffffffffffffffffffffffffffffff")
)

func data(n int) []byte { return bytes.Repeat([]byte{0xab}, n) }

var someCalls = map[string][]multicall.Call{
	"none":        {},
	"one empty":   {{}},
	"one":         {{Target: alice, AllowFailure: true, Data: data(4)}},
	"a full word": {{Target: bob, Data: data(32)}},
	"several": {
		{Target: alice, AllowFailure: true, Data: data(292)},
		{Target: bob},
		{AllowFailure: true, Data: data(33)},
		{Target: alice, Data: data(64)},
	},
	"many": slices.Repeat([]multicall.Call{{Target: alice, AllowFailure: true, Data: data(292)}, {Target: bob, Data: data(31)}}, 150),
}

var someResults = map[string][]multicall.Result{
	"none":      {},
	"one empty": {{}},
	"one":       {{Success: true, Data: data(32)}},
	"several":   {{Success: true}, {Data: data(100)}, {Success: true, Data: data(1)}, {Data: data(64)}},
	"many":      slices.Repeat([]multicall.Result{{Success: true}, {Data: data(68)}}, 150),
}

// What we write and read is what go-ethereum's ABI encoder does.
func TestAgreesWithABI(t *testing.T) {
	for name, calls := range someCalls {
		want := packCalls(t, calls)
		if got := multicall.Calldata(calls); !bytes.Equal(got, want) {
			t.Errorf("%s: calldata\n%x, want\n%x", name, got, want)
		}
		if got, err := multicall.ParseCalldata(want); err != nil || !sameCalls(got, calls) {
			t.Errorf("%s: parsed %v, %v; want %v", name, got, err, calls)
		}
	}
	if got, want := multicall.Calldata(nil), packCalls(t, nil); !bytes.Equal(got, want) {
		t.Errorf("nil: calldata %x, want %x", got, want)
	}
	for name, results := range someResults {
		if got, err := multicall.ParseResults(packResults(t, results), len(results)); err != nil || !sameResults(got, results) {
			t.Errorf("%s: parsed %v, %v; want %v", name, got, err, results)
		}
	}
}

func TestAgreesWithABIWhateverItIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bytesOf := rapid.SliceOfN(rapid.Byte(), 0, 100)
		calls := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) multicall.Call {
			return multicall.Call{
				Target:       common.Address(rapid.SliceOfN(rapid.Byte(), 20, 20).Draw(t, "target")),
				AllowFailure: rapid.Bool().Draw(t, "allow"),
				Data:         bytesOf.Draw(t, "data"),
			}
		}), 0, 12).Draw(t, "calls")
		want := packCalls(t, calls)
		if got := multicall.Calldata(calls); !bytes.Equal(got, want) {
			t.Fatalf("calldata\n%x, want\n%x", got, want)
		}
		if got, err := multicall.ParseCalldata(want); err != nil || !sameCalls(got, calls) {
			t.Fatalf("parsed %v, %v", got, err)
		}
		results := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) multicall.Result {
			return multicall.Result{Success: rapid.Bool().Draw(t, "success"), Data: bytesOf.Draw(t, "returned")}
		}), 0, 12).Draw(t, "results")
		ret := packResults(t, results)
		if got, err := multicall.ParseResults(ret, len(results)); err != nil || !sameResults(got, results) {
			t.Fatalf("parsed %v, %v", got, err)
		}
		wrong := rapid.IntRange(-1, 20).Filter(func(n int) bool { return n != len(results) }).Draw(t, "another number")
		if got, err := multicall.ParseResults(ret, wrong); !errors.Is(err, multicall.ErrMalformed) || got != nil {
			t.Fatalf("%d results for %d calls are %v, %v", len(results), wrong, got, err)
		}
	})
}

// What is parsed can be appended to without changing its neighbour.
func TestParsedDataIsClosed(t *testing.T) {
	calldata := multicall.Calldata(someCalls["several"])
	calls, err := multicall.ParseCalldata(calldata)
	if err != nil {
		t.Fatal(err)
	}
	ret := packResults(t, someResults["several"])
	results, err := multicall.ParseResults(ret, len(someResults["several"]))
	if err != nil {
		t.Fatal(err)
	}
	before, beforeRet := bytes.Clone(calldata), bytes.Clone(ret)
	for _, c := range calls {
		_ = append(c.Data, 1)
	}
	for _, r := range results {
		_ = append(r.Data, 1)
	}
	if !bytes.Equal(before, calldata) || !bytes.Equal(beforeRet, ret) {
		t.Error("appending to what was parsed wrote behind it")
	}
}

// edit gives b with a word replaced; at counts words behind skip bytes.
func edit(b []byte, skip, at int, with ...byte) []byte {
	b = bytes.Clone(b)
	w := b[skip+32*at:][:32]
	clear(w)
	copy(w[32-len(with):], with)
	return b
}

func TestParseCalldataRefuses(t *testing.T) {
	// Words of two: 0 offset, 1 length, 2 and 3 the tuples' offsets, 4 to 8 the first tuple with one word of bytes, 9 to 12 the second.
	two := multicall.Calldata([]multicall.Call{{Target: alice, AllowFailure: true, Data: data(5)}, {Target: bob}})
	if len(two) != 4+13*32 {
		t.Fatalf("the fixture has %d bytes", len(two))
	}
	overlapping := edit(edit(two, 4, 3, 64), 4, 1, 2)
	for name, b := range map[string][]byte{
		"nothing":                     nil,
		"a selector alone":            two[:4],
		"no length":                   two[:4+32],
		"no selector":                 two[4:],
		"another function":            append([]byte{1}, two[1:]...),
		"one byte short":              two[:len(two)-1],
		"a word short":                two[:len(two)-32],
		"one byte more":               append(bytes.Clone(two), 0),
		"a word more":                 append(bytes.Clone(two), make([]byte, 32)...),
		"the array elsewhere":         edit(two, 4, 0, 64),
		"the array far away":          edit(two, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 32),
		"fewer":                       edit(two, 4, 1, 1),
		"more":                        edit(two, 4, 1, 3),
		"none":                        edit(two, 4, 1, 0),
		"very many":                   edit(two, 4, 1, 0x7f, 0xff, 0xff, 0xff),
		"2^31":                        edit(two, 4, 1, 0x80, 0, 0, 0),
		"2^64+2":                      edit(two, 4, 1, 1, 0, 0, 0, 0, 0, 0, 0, 2),
		"2^255":                       edit(two, 4, 1, append([]byte{0x80}, make([]byte, 31)...)...),
		"a tuple elsewhere":           edit(two, 4, 2, 96),
		"the tuples swapped":          edit(edit(two, 4, 2, 224), 4, 3, 64),
		"both the same tuple":         overlapping,
		"a tuple behind the end":      edit(two, 4, 3, 0xff, 0),
		"an address too long":         edit(two, 4, 4, append([]byte{1}, alice[:]...)...),
		"neither true nor false":      edit(two, 4, 5, 2),
		"true in the wrong place":     edit(two, 4, 5, 1, 0),
		"bytes elsewhere":             edit(two, 4, 6, 128),
		"bytes before":                edit(two, 4, 6, 64),
		"bytes longer than padding":   edit(two, 4, 7, 33),
		"bytes shorter, now dirty":    edit(two, 4, 7, 4),
		"bytes behind the end":        edit(two, 4, 12, 1),
		"bytes of 2^31":               edit(two, 4, 7, 0x80, 0, 0, 0),
		"bytes of 2^256-1":            edit(two, 4, 7, bytes.Repeat([]byte{0xff}, 32)...),
		"dirt behind the bytes":       edit(two, 4, 8, append(data(5), append(make([]byte, 26), 1)...)...),
		"the result of such a call":   append(bytes.Clone(two[:4]), packResults(t, someResults["several"])...),
		"an array of empty calls cut": multicall.Calldata(make([]multicall.Call, 3))[:4+5*32],
	} {
		if got, err := multicall.ParseCalldata(b); !errors.Is(err, multicall.ErrMalformed) || got != nil {
			t.Errorf("%s: parsed %v, %v", name, got, err)
		}
	}
	if _, err := multicall.ParseCalldata(two); err != nil {
		t.Errorf("and what they were made of: %v", err)
	}
}

func TestParseResultsRefuses(t *testing.T) {
	// Words of two: 0 offset, 1 length, 2 and 3 the tuples' offsets, 4 to 7 the first tuple with one word of bytes, 8 to 10 the second.
	two := packResults(t, []multicall.Result{{Success: true, Data: data(5)}, {}})
	if len(two) != 11*32 {
		t.Fatalf("the fixture has %d bytes", len(two))
	}
	for name, b := range map[string][]byte{
		"nothing":                   nil,
		"a word":                    two[:32],
		"one byte short":            two[:len(two)-1],
		"a word short":              two[:len(two)-32],
		"one byte more":             append(bytes.Clone(two), 0),
		"a word more":               append(bytes.Clone(two), make([]byte, 32)...),
		"the array elsewhere":       edit(two, 0, 0, 64),
		"fewer":                     edit(two, 0, 1, 1),
		"more":                      edit(two, 0, 1, 3),
		"very many":                 edit(two, 0, 1, 0x7f, 0xff, 0xff, 0xff),
		"2^64+2":                    edit(two, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 2),
		"the tuples swapped":        edit(edit(two, 0, 2, 192), 0, 3, 64),
		"both the same tuple":       edit(two, 0, 3, 64),
		"a tuple behind the end":    edit(two, 0, 3, 0xff, 0),
		"neither true nor false":    edit(two, 0, 4, 2),
		"true in the wrong place":   edit(two, 0, 4, 1, 0, 0, 0, 0),
		"bytes elsewhere":           edit(two, 0, 5, 96),
		"bytes longer than padding": edit(two, 0, 6, 33),
		"bytes shorter, now dirty":  edit(two, 0, 6, 4),
		"bytes behind the end":      edit(two, 0, 10, 1),
		"a reason to revert":        append([]byte{0x08, 0xc3, 0x79, 0xa0}, two...),
		"calldata's array":          multicall.Calldata(someCalls["several"][:2])[4:],
	} {
		if got, err := multicall.ParseResults(b, 2); !errors.Is(err, multicall.ErrMalformed) || got != nil {
			t.Errorf("%s: parsed %v, %v", name, got, err)
		}
	}
	if _, err := multicall.ParseResults(two, 2); err != nil {
		t.Errorf("and what they were made of: %v", err)
	}
}

// Whatever byte is changed: what is still taken means something else, and is what we would have written of that.
func TestOneEncodingOnly(t *testing.T) {
	calls, results := someCalls["several"], someResults["several"]
	calldata, ret := multicall.Calldata(calls), packResults(t, results)
	changes := []byte{1, 0x20, 0x60, 0x80, 0xff}
	refused := 0
	for at := range calldata {
		for _, c := range changes {
			b := bytes.Clone(calldata)
			b[at] ^= c
			got, err := multicall.ParseCalldata(b)
			if err != nil {
				refused++
			} else if !bytes.Equal(multicall.Calldata(got), b) || sameCalls(got, calls) {
				t.Errorf("byte %d changed by %#x gives %v", at, c, got)
			}
		}
	}
	for at := range ret {
		for _, c := range changes {
			b := bytes.Clone(ret)
			b[at] ^= c
			got, err := multicall.ParseResults(b, len(results))
			if err != nil {
				refused++
			} else if !bytes.Equal(packResults(t, got), b) || sameResults(got, results) {
				t.Errorf("byte %d changed by %#x gives %v", at, c, got)
			}
		}
	}
	if most := (len(calldata) + len(ret)) * len(changes); refused == 0 || refused == most {
		t.Errorf("%d of %d were refused", refused, most)
	}
}

// What is taken for calldata is what we would have written, and go-ethereum reads it the same.
func FuzzParseCalldata(f *testing.F) {
	for _, calls := range someCalls {
		if len(calls) < 10 {
			f.Add(multicall.Calldata(calls))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		calls, err := multicall.ParseCalldata(b)
		if err != nil {
			if !errors.Is(err, multicall.ErrMalformed) || calls != nil {
				t.Fatalf("%v, %v", calls, err)
			}
			return
		}
		if again := multicall.Calldata(calls); !bytes.Equal(again, b) {
			t.Fatalf("%x would be written\n%x", b, again)
		}
		values, err := contract.Methods["aggregate3"].Inputs.Unpack(b[4:])
		if err != nil {
			t.Fatal(err)
		}
		var theirs []abiCall
		abi.ConvertType(values[0], &theirs)
		same := func(a multicall.Call, b abiCall) bool {
			return a.Target == b.Target && a.AllowFailure == b.AllowFailure && bytes.Equal(a.Data, b.CallData)
		}
		if !slices.EqualFunc(calls, theirs, same) {
			t.Fatalf("%v here and %v there", calls, theirs)
		}
	})
}

// What is taken for results is what a contract would have written.
func FuzzParseResults(f *testing.F) {
	for _, results := range someResults {
		if len(results) < 10 {
			f.Add(packResults(f, results), len(results))
		}
	}
	f.Add(binary.BigEndian.AppendUint64(make([]byte, 24), 32), 1)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		results, err := multicall.ParseResults(b, n)
		if err != nil {
			if !errors.Is(err, multicall.ErrMalformed) || results != nil {
				t.Fatalf("%v, %v", results, err)
			}
			return
		}
		if again := packResults(t, results); len(results) != n || !bytes.Equal(again, b) {
			t.Fatalf("%d results of %d: %x would be written\n%x", len(results), n, b, again)
		}
	})
}
