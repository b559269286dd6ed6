package signer

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"
)

// The parser takes what encoding/asn1 would have written of two numbers in the curve's range, and nothing else.
func FuzzParseDER(f *testing.F) {
	for _, s := range []string{
		"", "3006020101020101", "300702020080020101", "3006020100020101", "30060201ff020101", "30070202007f020101", "308106020101020101",
		"3009020101020101020101", "304402206a29e09b5c0454cd0cb1c60f032bb733dccf9ccc0c764ad0a63d49c805bd4af802200fdab02e201438acfea3e9367e823b735891199a4bd75f543ecebac2eeee4bed",
		"3026022100fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141020101",
		"3026022100fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140020101",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	order := crypto.S256().Params().N
	inRange := func(n *big.Int) bool { return n.Sign() > 0 && n.Cmp(order) < 0 }
	f.Fuzz(func(t *testing.T, b []byte) {
		r, s, err := parseDER(b)
		if err != nil && !errors.Is(err, ErrSignature) {
			t.Fatalf("%x: %v", b, err)
		}
		var want struct{ R, S *big.Int }
		rest, wantErr := asn1.Unmarshal(b, &want)
		good := wantErr == nil && len(rest) == 0 && inRange(want.R) && inRange(want.S)
		if good {
			// encoding/asn1 passes over what is behind the second number.
			again, err := asn1.Marshal(want)
			good = err == nil && bytes.Equal(again, b)
		}
		if good != (err == nil) {
			t.Fatalf("%x: %v here, %t there (%v)", b, err, good, wantErr)
		}
		if !good {
			return
		}
		gotR, gotS := r.Bytes(), s.Bytes()
		if new(big.Int).SetBytes(gotR[:]).Cmp(want.R) != 0 || new(big.Int).SetBytes(gotS[:]).Cmp(want.S) != 0 {
			t.Fatalf("%x: r %x, s %x", b, gotR, gotS)
		}
	})
}
