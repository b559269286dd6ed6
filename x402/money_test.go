package x402_test

import (
	"strings"
	"testing"

	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-x402/caddy-x402/x402"
)

const maxUint256 = "115792089237316195423570985008687907853269984665640564039457584007913129639935"

func TestParseAmount(t *testing.T) {
	tests := []struct {
		in       string
		decimals uint8
		want     string // atomic units
	}{
		{"0.01", 6, "10000"},
		{"$0.01", 6, "10000"},
		{"1", 6, "1000000"},
		{"10", 6, "10000000"}, // 10 dollars: no guessing that big integers are atomic units already
		{"1000000", 6, "1000000000000"},
		{"0.000001", 6, "1"},
		{"1.50", 6, "1500000"},
		{"0.010000", 6, "10000"},
		{"7", 0, "7"},
		{"0.1", 18, "100000000000000000"},
		{maxUint256, 0, maxUint256},
		{"115792089237316195423570985008687907853269984665640564039457584007913129.639935", 6, maxUint256},
	}
	for _, tt := range tests {
		got, err := x402.ParseAmount(tt.in, tt.decimals)
		if err != nil || got.Dec() != tt.want {
			t.Errorf("ParseAmount(%q, %d) = %s, %v; want %s", tt.in, tt.decimals, got.Dec(), err, tt.want)
		}
	}
}

// Each error says what to write instead.
func TestParseAmountRefuses(t *testing.T) {
	tests := []struct {
		in       string
		decimals uint8
		says     string
	}{
		{"", 6, "write a decimal number such as 0.01"},
		{"$", 6, "write a decimal number such as 0.01"},
		{"-1", 6, "write the number alone"},
		{"+1", 6, "write the number alone"},
		{"$-1", 6, "write the number alone"},
		{"-$1", 6, "write the number alone"},
		{"1e3", 6, "no exponent"},
		{"1E-2", 6, "no exponent"},
		{"1.5e3", 6, "no exponent"},
		{"0", 6, "write a price above 0"},
		{"0.00", 6, "write a price above 0"},
		{"0.0000001", 6, "write at most 6 digits"},
		{"1.0000000", 6, "write at most 6 digits"},
		{"1.5", 0, "write at most 0 digits"},
		{".5", 6, "write 0.5"},
		{"$.5", 6, "write 0.5"},
		{"1.", 6, "write 1"},
		{".", 6, "write"},
		{"01", 6, "leave them out"},
		{"00.5", 6, "leave them out"},
		{"$$1", 6, "write digits"},
		{"1$", 6, "write digits"},
		{" 1", 6, "write digits"},
		{"1 ", 6, "write digits"},
		{"1,000", 6, "write digits"},
		{"1_000", 6, "write digits"},
		{"1.0.0", 6, "write digits"},
		{"0x10", 6, "write digits"},
		{"1 USDC", 6, "write digits"},
		{"١", 6, "write digits"}, // digits of other scripts
		{"Inf", 6, "write digits"},
		{"115792089237316195423570985008687907853269984665640564039457584007913129639936", 0, "more than"},
		{"115792089237316195423570985008687907853269984665640564039457584007913129.639936", 6, "more than"},
		{strings.Repeat("9", 1000), 6, "more than"},
	}
	for _, tt := range tests {
		got, err := x402.ParseAmount(tt.in, tt.decimals)
		if err == nil {
			t.Errorf("ParseAmount(%q, %d) = %s, want an error", tt.in, tt.decimals, got.Dec())
		} else if !strings.Contains(err.Error(), tt.says) {
			t.Errorf("ParseAmount(%q, %d): %q does not say %q", tt.in, tt.decimals, err, tt.says)
		}
	}
}

func TestFormatAmount(t *testing.T) {
	tests := []struct {
		atomic   uint64
		decimals uint8
		want     string
	}{
		{10000, 6, "0.01"},
		{1, 6, "0.000001"},
		{1000000, 6, "1"},
		{1500000, 6, "1.5"},
		{100, 0, "100"},
		{0, 6, "0"},
		{1, 77, "0." + strings.Repeat("0", 76) + "1"},
	}
	for _, tt := range tests {
		if got := x402.FormatAmount(uint256.NewInt(tt.atomic), tt.decimals); got != tt.want {
			t.Errorf("FormatAmount(%d, %d) = %q, want %q", tt.atomic, tt.decimals, got, tt.want)
		}
	}
}

// What is written is read back as the same amount, for every amount and asset.
func TestAmountRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var v uint256.Int
		v.SetBytes(rapid.SliceOfN(rapid.Byte(), 1, 32).Draw(t, "bytes"))
		if v.IsZero() {
			v.SetOne()
		}
		decimals := rapid.Uint8().Draw(t, "decimals")
		s := x402.FormatAmount(&v, decimals)
		got, err := x402.ParseAmount(s, decimals)
		if err != nil || got != v {
			t.Fatalf("%s with %d decimals is written %q and read %s, %v", v.Dec(), decimals, s, got.Dec(), err)
		}
	})
}

func TestParseAtomic(t *testing.T) {
	for _, s := range []string{"0", "1", "10000", maxUint256} {
		if v, err := x402.ParseAtomic(s); err != nil || v.Dec() != s {
			t.Errorf("ParseAtomic(%q) = %s, %v", s, v.Dec(), err)
		}
	}
	for _, s := range []string{
		"", "00", "01", "-1", "+1", " 1", "1 ", "1.0", "1e3", "0x1", "١", "$1", maxUint256[:77] + "6", "1" + maxUint256,
	} {
		if v, err := x402.ParseAtomic(s); err == nil {
			t.Errorf("ParseAtomic(%q) = %s, want an error", s, v.Dec())
		}
	}
}
