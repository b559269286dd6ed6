package chain

import (
	"encoding/json"
	"errors"
	"math/big"
	"testing"
)

// The tip is what the node suggests, else the median of what was paid, else a small constant.
func TestFees(t *testing.T) {
	no := errors.New("no such method")
	cases := []struct {
		name, tip, history string
		want               int64
	}{
		{"suggested", `"0x7"`, `{"reward":[["0x1"]]}`, 7},
		{"median", "", `{"reward":[["0x9"],["0x1"],["0x5"]]}`, 5},
		{"nothing", "", "", fallbackTip},
		{"empty history", "", `{}`, fallbackTip},
	}
	for _, tc := range cases {
		var f Fees
		q := f.Queries()
		if err := q[0].decode(json.RawMessage(`{"number":"0x1","hash":"0x` + zeros + `","timestamp":"0x1","baseFeePerGas":"0x64"}`)); err != nil {
			t.Fatal(err)
		}
		for i, answer := range map[int]string{1: tc.tip, 2: tc.history} {
			if answer == "" {
				q[i].Err = no
			} else if err := q[i].decode(json.RawMessage(answer)); err != nil {
				t.Fatal(err)
			}
		}
		maxFee, tip, err := f.Result()
		if err != nil || tip.Cmp(big.NewInt(tc.want)) != 0 || maxFee.Cmp(big.NewInt(200+tc.want)) != 0 {
			t.Errorf("%s: got %s, %s, %v", tc.name, maxFee, tip, err)
		}
	}
	var f Fees
	if err := f.Queries()[0].decode(json.RawMessage(`{"number":"0x1","hash":"0x` + zeros + `","timestamp":"0x1"}`)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Result(); err == nil {
		t.Error("a chain without a base fee has fees")
	}
}

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"
