package x402

import (
	"errors"
	"fmt"
	"strings"

	"github.com/holiman/uint256"
)

var errOverflow = errors.New("more than a token can count (2^256-1 atomic units)")

// ParseAmount reads a price as people write it, "0.01" or "$0.01", into atomic units of an asset with
// that many decimals. It is exact: nothing is rounded, and no unit is guessed. Zero, signs, exponents,
// separators, a bare "." on either side, needless leading zeros and more decimals than the asset has
// are errors, which say what to write instead.
func ParseAmount(s string, decimals uint8) (uint256.Int, error) {
	amount, err := parseAmount(strings.TrimPrefix(s, "$"), decimals)
	if err != nil {
		return uint256.Int{}, fmt.Errorf("amount %.100q: %w", s, err)
	}
	return amount, nil
}

func parseAmount(s string, decimals uint8) (uint256.Int, error) {
	whole, fraction, point := strings.Cut(s, ".")
	switch {
	case s == "":
		return uint256.Int{}, errors.New("nothing there; write a decimal number such as 0.01")
	case s[0] == '-' || s[0] == '+':
		return uint256.Int{}, errors.New("has a sign; write the number alone, such as 0.01")
	case digits(whole) != len(whole) || digits(fraction) != len(fraction):
		return uint256.Int{}, errors.New(
			"not a plain decimal number; write digits and at most one point, no exponent and no unit, such as 0.01 or $0.01")
	case whole == "":
		return uint256.Int{}, fmt.Errorf("nothing before the point; write 0.%.20s", fraction)
	case point && fraction == "":
		return uint256.Int{}, fmt.Errorf("nothing after the point; write %.20s", whole)
	case len(whole) > 1 && whole[0] == '0':
		return uint256.Int{}, errors.New("has needless leading zeros; leave them out")
	case len(fraction) > int(decimals):
		return uint256.Int{}, fmt.Errorf("%d decimals, but the asset has %d; write at most %d digits after the point",
			len(fraction), decimals, decimals)
	}
	amount, err := fromDigits(strings.TrimLeft(whole+fraction+strings.Repeat("0", int(decimals)-len(fraction)), "0"))
	if err != nil {
		return uint256.Int{}, err
	}
	if amount.IsZero() {
		return uint256.Int{}, errors.New("is zero; write a price above 0, or leave the path unpriced")
	}
	return amount, nil
}

// digits counts the decimal digits that s begins with.
func digits(s string) int {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return i
		}
	}
	return len(s)
}

// fromDigits takes decimal digits without leading zeros; none is zero.
func fromDigits(s string) (uint256.Int, error) {
	if s == "" {
		return uint256.Int{}, nil
	}
	var v uint256.Int
	if err := v.SetFromDecimal(s); err != nil {
		return uint256.Int{}, errOverflow
	}
	return v, nil
}

// FormatAmount writes atomic units the way ParseAmount reads them, without "$" and with no more
// decimals than it needs: 10000 with 6 decimals is "0.01". For zero it gives "0".
func FormatAmount(v *uint256.Int, decimals uint8) string {
	s := v.Dec()
	if short := int(decimals) + 1 - len(s); short > 0 {
		s = strings.Repeat("0", short) + s
	}
	point := len(s) - int(decimals)
	if fraction := strings.TrimRight(s[point:], "0"); fraction != "" {
		return s[:point] + "." + fraction
	}
	return s[:point]
}

// ParseAtomic reads an integer as the wire has it: decimal digits, no sign, no leading zero unless it is
// "0", at most 2^256-1. Everything else is an error, so that a number has one spelling only.
func ParseAtomic(s string) (uint256.Int, error) {
	switch {
	case s == "" || digits(s) != len(s):
		return uint256.Int{}, fmt.Errorf("integer %.100q: write decimal digits only", s)
	case s[0] == '0' && len(s) > 1:
		return uint256.Int{}, fmt.Errorf("integer %.100q: leave out the leading zeros", s)
	}
	v, err := fromDigits(s)
	if err != nil {
		return uint256.Int{}, fmt.Errorf("integer %.100q: %w", s, err)
	}
	return v, nil
}
