package multicall

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
)

const (
	word = 32
	// prefixSize is what stands before an array's elements: its offset and its length.
	prefixSize = 2 * word
)

// rowSize is the size of a tuple of that many words and of size bytes, whose offset and length take a word each.
func rowSize(fields, size int) int { return (fields+2)*word + padded(size) }

// padded rounds n up to whole words.
func padded(n int) int { return (n + word - 1) / word * word }

func putInt(w []byte, n int) { binary.BigEndian.PutUint64(w[word-8:word], uint64(n)) }

// parseInt is the number in a word, if it is small enough to be a size.
func parseInt(w []byte) (int, bool) {
	n := binary.BigEndian.Uint32(w[word-4:])
	return int(n & 0x7fffffff), isZero(w[:word-4]) && n <= 0x7fffffff
}

func parseBool(w []byte) (value, ok bool) {
	b := w[word-1]
	return b == 1, isZero(w[:word-1]) && b <= 1
}

func parseAddress(w []byte) (common.Address, bool) {
	const pad = word - common.AddressLength
	return common.Address(w[pad:]), isZero(w[:pad])
}

func isZero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// reader walks over an array of tuples that are some words and then one bytes. It takes only the encoding without gaps,
// overlaps and dirt, in which every offset follows from what stands before it: no two encodings mean the same.
type reader struct {
	rows   []byte // the tuples' offsets, and the tuples
	fields int
	count  int
	read   int
	at     int // where the next tuple begins
}

func newReader(b []byte, fields int) (*reader, error) {
	if len(b) < prefixSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	offset, ok := parseInt(b[:word])
	count, ok2 := parseInt(b[word:prefixSize])
	rows := b[prefixSize:]
	// Whoever says that there are many must have sent as many.
	if !ok || !ok2 || offset != word || count > len(rows)/(word+rowSize(fields, 0)) {
		return nil, fmt.Errorf("%w: no array of that length in %d bytes", ErrMalformed, len(b))
	}
	return &reader{rows: rows, fields: fields, count: count, at: count * word}, nil
}

// next gives the words and the bytes of the next tuple, of which there are count.
func (r *reader) next() (fields, data []byte, err error) {
	offset, ok := parseInt(r.rows[r.read*word:])
	r.read++
	row := r.rows[r.at:]
	if !ok || offset != r.at || len(row) < rowSize(r.fields, 0) {
		return nil, nil, fmt.Errorf("%w: not where it should be", ErrMalformed)
	}
	head, tail := r.fields*word, row[rowSize(r.fields, 0):]
	offset, ok = parseInt(row[head:])
	size, ok2 := parseInt(row[head+word:])
	if !ok || !ok2 || offset != head+word || size > len(tail) || padded(size) > len(tail) || !isZero(tail[size:padded(size)]) {
		return nil, nil, fmt.Errorf("%w: its bytes are not encoded as usual", ErrMalformed)
	}
	r.at += rowSize(r.fields, size)
	return row[:head], tail[:size:size], nil
}

// end makes sure that nothing follows.
func (r *reader) end() error {
	if r.at != len(r.rows) {
		return fmt.Errorf("%w: %d bytes too many", ErrMalformed, len(r.rows)-r.at)
	}
	return nil
}
