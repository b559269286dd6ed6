package redis

import (
	"encoding/binary"
	"errors"
	"time"
)

// errDamaged: a value in Redis is not what this package wrote.
var errDamaged = errors.New("ledger/redis: a stored value is damaged")

// encoder writes values as Redis keeps them: memory is what a ledger in Redis costs, and JSON would need three
// times as much.
type encoder struct{ b []byte }

func (e *encoder) byte(v byte) { e.b = append(e.b, v) }

func (e *encoder) uint(v uint64) { e.b = binary.AppendUvarint(e.b, v) }

func (e *encoder) raw(v []byte) { e.b = append(e.b, v...) }

func (e *encoder) bytes(v []byte) {
	e.uint(uint64(len(v)))
	e.raw(v)
}

func (e *encoder) text(v string) {
	e.uint(uint64(len(v)))
	e.b = append(e.b, v...)
}

// time writes t in microseconds; the zero time has a form of its own.
func (e *encoder) time(t time.Time) {
	if t.IsZero() {
		e.byte(0)
		return
	}
	e.byte(1)
	e.b = binary.AppendVarint(e.b, t.UnixMicro())
}

// word writes one of a few known words as a byte, and any other as it is.
func (e *encoder) word(known []string, v string) {
	for i, k := range known {
		if k == v {
			e.byte(byte(i + 1))
			return
		}
	}
	e.byte(0)
	e.text(v)
}

// decoder reads what an encoder wrote. The first error stays; what is read after it is zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail() {
	d.b, d.err = nil, errDamaged
}

func (d *decoder) raw(n uint64) []byte {
	if uint64(len(d.b)) < n {
		d.fail()
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if v := d.raw(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes() []byte { return d.raw(d.uint()) }

func (d *decoder) text() string { return string(d.bytes()) }

// fixed fills v, an address or a hash.
func (d *decoder) fixed(v []byte) { copy(v, d.raw(uint64(len(v)))) }

func (d *decoder) time() time.Time {
	if d.byte() == 0 {
		return time.Time{}
	}
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return time.Time{}
	}
	d.b = d.b[n:]
	return time.UnixMicro(v).UTC()
}

func (d *decoder) word(known []string) string {
	switch i := int(d.byte()); {
	case i == 0:
		return d.text()
	case i <= len(known):
		return known[i-1]
	}
	d.fail()
	return ""
}

// end is the error of all that was read; nothing may be left.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail()
	}
	return d.err
}
