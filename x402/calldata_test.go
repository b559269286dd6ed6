package x402_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/x402"
)

// tokenABI is the interface of the token as go-ethereum's own encoder reads it.
var tokenABI = mustABI(`[
	{"type":"function","name":"vrs","inputs":[]},
	{"type":"function","name":"transferWithAuthorization","inputs":[
		{"name":"from","type":"address"},{"name":"to","type":"address"},{"name":"value","type":"uint256"},
		{"name":"validAfter","type":"uint256"},{"name":"validBefore","type":"uint256"},{"name":"nonce","type":"bytes32"},
		{"name":"v","type":"uint8"},{"name":"r","type":"bytes32"},{"name":"s","type":"bytes32"}]},
	{"type":"function","name":"transferWithAuthorization","inputs":[
		{"name":"from","type":"address"},{"name":"to","type":"address"},{"name":"value","type":"uint256"},
		{"name":"validAfter","type":"uint256"},{"name":"validBefore","type":"uint256"},{"name":"nonce","type":"bytes32"},
		{"name":"signature","type":"bytes"}]},
	{"type":"function","name":"authorizationState","inputs":[{"name":"a","type":"address"},{"name":"n","type":"bytes32"}],"outputs":[{"type":"bool"}]},
	{"type":"function","name":"balanceOf","inputs":[{"name":"a","type":"address"}],"outputs":[{"type":"uint256"}]},
	{"type":"function","name":"name","inputs":[],"outputs":[{"type":"string"}]},
	{"type":"function","name":"version","inputs":[],"outputs":[{"type":"string"}]},
	{"type":"function","name":"decimals","inputs":[],"outputs":[{"type":"uint8"}]},
	{"type":"function","name":"DOMAIN_SEPARATOR","inputs":[],"outputs":[{"type":"bytes32"}]},
	{"type":"event","name":"AuthorizationUsed","inputs":[{"name":"authorizer","type":"address","indexed":true},{"name":"nonce","type":"bytes32","indexed":true}]},
	{"type":"event","name":"AuthorizationCanceled","inputs":[{"name":"authorizer","type":"address","indexed":true},{"name":"nonce","type":"bytes32","indexed":true}]},
	{"type":"event","name":"Transfer","inputs":[{"name":"from","type":"address","indexed":true},{"name":"to","type":"address","indexed":true},{"name":"value","type":"uint256"}]}
]`)

func mustABI(s string) abi.ABI {
	parsed, err := abi.JSON(strings.NewReader(s))
	if err != nil {
		panic(err)
	}
	return parsed
}

func pack(t interface {
	Helper()
	Fatal(...any)
}, name string, args ...any,
) []byte {
	t.Helper()
	data, err := tokenABI.Pack(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Our calldata is what go-ethereum's ABI encoder makes, and reads back as what went in.
func TestTransferCalldataAgreesWithABI(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawAuthorization(t)
		sig := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "signature")
		if rapid.Bool().Draw(t, "ecdsa") {
			sig = rapid.SliceOfN(rapid.Byte(), 65, 65).Draw(t, "signature65")
		}
		fields := []any{a.From, a.To, a.Value.ToBig(), a.ValidAfter.ToBig(), a.ValidBefore.ToBig(), [32]byte(a.Nonce)}

		// go-ethereum numbers overloads: the second of the list has "0" behind its name.
		want := pack(t, "transferWithAuthorization0", append(fields, sig)...)
		got := a.TransferCalldataBytes(sig)
		if !bytes.Equal(got, want) {
			t.Fatalf("bytes overload\n%x, want\n%x", got, want)
		}
		checkParse(t, got, a, sig)

		if len(sig) == x402.SignatureLength {
			v := sig[64]
			if v < 2 {
				v += 27
			}
			want = pack(t, "transferWithAuthorization", append(fields, v, [32]byte(sig[:32]), [32]byte(sig[32:64]))...)
			sig = append(bytes.Clone(sig[:64]), v)
		}
		got = a.TransferCalldata(sig)
		if !bytes.Equal(got, want) {
			t.Fatalf("chosen overload\n%x, want\n%x", got, want)
		}
		checkParse(t, got, a, sig)
	})
}

func checkParse(t *rapid.T, data []byte, a x402.Authorization, sig []byte) {
	gotA, gotSig, err := x402.ParseTransferCalldata(data)
	if err != nil || gotA != a || !bytes.Equal(gotSig, sig) {
		t.Fatalf("parsed %+v, %x, %v; want %+v, %x", gotA, gotSig, err, a, sig)
	}
}

// A token refuses v 0 and 1, which some wallets write: calldata has 27 and 28.
func TestTransferCalldataNormalisesV(t *testing.T) {
	a := authorization()
	sig := sign(t, a, payerKey)
	low := append(bytes.Clone(sig[:64]), sig[64]-27)
	if got, want := a.TransferCalldata(low), a.TransferCalldata(sig); !bytes.Equal(got, want) {
		t.Errorf("calldata\n%x, want\n%x", got, want)
	}
	_, got, err := x402.ParseTransferCalldata(a.TransferCalldataBytes(low))
	if err != nil || !bytes.Equal(got, low) {
		t.Errorf("the bytes overload changed a signature that may be a contract's own: %x, %v; want %x", got, err, low)
	}
}

func TestParseTransferCalldataRefuses(t *testing.T) {
	a := authorization()
	vrs, long := a.TransferCalldata(sign(t, a, payerKey)), a.TransferCalldataBytes(bytes.Repeat([]byte{7}, 70))
	change := func(data []byte, at int, with byte) []byte {
		data = bytes.Clone(data)
		data[at] = with
		return data
	}
	tests := map[string][]byte{
		"nothing":                  nil,
		"a selector alone":         vrs[:4],
		"one byte short":           vrs[:len(vrs)-1],
		"one byte more":            append(bytes.Clone(vrs), 0),
		"another function":         change(vrs, 0, 0),
		"a dirty address":          change(vrs, 4, 1),
		"a dirty recipient":        change(vrs, 4+32, 1),
		"v of two bytes":           change(vrs, 4+7*32-2, 1),
		"v 0":                      change(vrs, 4+7*32-1, 0),
		"another offset":           change(long, 4+7*32-1, 0xc0),
		"a size too large":         change(long, 4+8*32-1, 97),
		"a size too small":         change(long, 4+8*32-1, 64),
		"a huge size":              change(long, 4+7*32, 0xff),
		"a size of 2^31":           change(long, 4+8*32-4, 0x80),
		"dirty padding":            change(long, len(long)-1, 1),
		"a word more":              append(bytes.Clone(long), make([]byte, 32)...),
		"a word less":              long[:len(long)-32],
		"no signature's size":      long[:4+7*32],
		"the fields and no more":   long[:4+6*32],
		"the fields, not complete": long[:4+6*32-1],
	}
	for name, data := range tests {
		if got, sig, err := x402.ParseTransferCalldata(data); err == nil {
			t.Errorf("%s: parsed %+v, %x; want an error", name, got, sig)
		}
	}
}

func TestReadCalldata(t *testing.T) {
	a := authorization()
	id := a.ID(sepolia.ChainID, sepolia.Asset.Address)
	tests := []struct {
		name      string
		got, want []byte
	}{
		{"authorizationState", id.AuthorizationStateCalldata(), pack(t, "authorizationState", a.From, [32]byte(a.Nonce))},
		{"balanceOf", x402.BalanceOfCalldata(payer), pack(t, "balanceOf", payer)},
		{"name", x402.NameCalldata(), pack(t, "name")},
		{"version", x402.VersionCalldata(), pack(t, "version")},
		{"decimals", x402.DecimalsCalldata(), pack(t, "decimals")},
		{"DOMAIN_SEPARATOR", x402.DomainSeparatorCalldata(), pack(t, "DOMAIN_SEPARATOR")},
	}
	for _, tt := range tests {
		if !bytes.Equal(tt.got, tt.want) {
			t.Errorf("%s: %x, want %x", tt.name, tt.got, tt.want)
		}
	}
}

func TestTopics(t *testing.T) {
	for name, got := range map[string]common.Hash{
		"AuthorizationUsed":     x402.TopicAuthorizationUsed,
		"AuthorizationCanceled": x402.TopicAuthorizationCanceled,
		"Transfer":              x402.TopicTransfer,
	} {
		if want := tokenABI.Events[name].ID; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestParseReturns(t *testing.T) {
	outputs := func(name string, args ...any) []byte {
		data, err := tokenABI.Methods[name].Outputs.Pack(args...)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for _, want := range []string{"", "USD Coin", strings.Repeat("x", 32), strings.Repeat("long ", 20)} {
		if got, err := x402.ParseString(outputs("name", want)); err != nil || got != want {
			t.Errorf("ParseString = %q, %v; want %q", got, err, want)
		}
	}
	if v, err := x402.ParseUint256(outputs("balanceOf", uint256.NewInt(77).ToBig())); err != nil || v.Uint64() != 77 {
		t.Errorf("ParseUint256 = %s, %v; want 77", v.Dec(), err)
	}
	for _, want := range []bool{false, true} {
		if got, err := x402.ParseBool(outputs("authorizationState", want)); err != nil || got != want {
			t.Errorf("ParseBool = %t, %v; want %t", got, err, want)
		}
	}
	two := make([]byte, 32)
	two[31] = 2
	for _, ret := range [][]byte{nil, two[:31], two, append(bytes.Clone(two), 0)} {
		if got, err := x402.ParseBool(ret); err == nil {
			t.Errorf("ParseBool(%x) = %t, want an error", ret, got)
		}
	}
	short := outputs("name", "USD Coin")
	short[63] = 33
	for _, ret := range [][]byte{nil, short[:63], short, bytes.Repeat([]byte{0xff}, 96)} {
		if got, err := x402.ParseString(ret); err == nil {
			t.Errorf("ParseString(%x) = %q, want an error", ret, got)
		}
	}
	if got, err := x402.ParseUint256(make([]byte, 31)); err == nil {
		t.Errorf("ParseUint256 of 31 bytes = %s, want an error", got.Dec())
	}
}
