package sqlstore

import (
	"database/sql"
	"fmt"
	"time"

	"github.com/holiman/uint256"
)

// Micros is t as it is stored; 0 is the zero time.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Octets is a hash or an address as it is stored: nothing for zero.
func Octets(b []byte) []byte {
	for _, x := range b {
		if x != 0 {
			return b
		}
	}
	return []byte{}
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// The columns are read through these, each the reverse of how it is written. They take what database/sql and pgx
// give: int64, string and []byte.
type (
	// Instant reads what Micros made.
	Instant struct{ T *time.Time }
	// Fixed reads what Octets made.
	Fixed []byte
	// Decimal reads an amount.
	Decimal struct{ N *uint256.Int }
	// Natural reads a number that is not negative.
	Natural struct{ N *uint64 }
	// Boolean reads 0 and 1.
	Boolean struct{ B *bool }
	// Bytes reads a copy of what is there; nil for none.
	Bytes struct{ B *[]byte }
)

var _ = []sql.Scanner{Instant{}, Fixed{}, Decimal{}, Natural{}, Boolean{}, Bytes{}}

// Scan implements sql.Scanner.
func (c Instant) Scan(src any) error {
	n, ok := src.(int64)
	if !ok {
		return fmt.Errorf("%w: a time is %T", ErrSchema, src)
	}
	*c.T = time.Time{}
	if n != 0 {
		*c.T = time.UnixMicro(n).UTC()
	}
	return nil
}

// Scan implements sql.Scanner.
func (c Fixed) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok && src != nil || len(b) != 0 && len(b) != len(c) {
		return fmt.Errorf("%w: a hash or address is %T of %d bytes", ErrSchema, src, len(b))
	}
	clear(c)
	copy(c, b)
	return nil
}

// Scan implements sql.Scanner.
func (c Decimal) Scan(src any) error {
	s, ok := src.(string)
	if !ok {
		return fmt.Errorf("%w: an amount is %T", ErrSchema, src)
	}
	if err := c.N.SetFromDecimal(s); err != nil {
		return fmt.Errorf("%w: an amount: %w", ErrSchema, err)
	}
	return nil
}

// Scan implements sql.Scanner.
func (c Natural) Scan(src any) error {
	n, ok := src.(int64)
	if !ok || n < 0 {
		return fmt.Errorf("%w: a number is %v", ErrSchema, src)
	}
	*c.N = uint64(n)
	return nil
}

// Scan implements sql.Scanner.
func (c Boolean) Scan(src any) error {
	n, ok := src.(int64)
	if !ok || n&^1 != 0 {
		return fmt.Errorf("%w: a flag is %v", ErrSchema, src)
	}
	*c.B = n == 1
	return nil
}

// Scan implements sql.Scanner.
func (c Bytes) Scan(src any) error {
	b, ok := src.([]byte)
	if !ok && src != nil {
		return fmt.Errorf("%w: bytes are %T", ErrSchema, src)
	}
	*c.B = append([]byte(nil), b...)
	return nil
}
