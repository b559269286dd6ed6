package settlement_test

import (
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-x402/caddy-x402/settlement"
)

// A note is found again, is what its hash says, differs from every other note, and can't be taken for a transaction.
func TestNote(t *testing.T) {
	desk := common.Address{1}
	a := settlement.NewNote(8453, desk, 5, "pay_1", []byte(`{"to":"x"}`))
	content, ok := a.Note()
	if !ok || string(content) != `{"to":"x"}` || a.Hash != crypto.Keccak256Hash(a.Raw) || a.Wallet != desk || a.Nonce != 5 {
		t.Errorf("%+v", a)
	}
	for _, other := range []settlement.Transaction{
		settlement.NewNote(8453, desk, 6, "pay_1", content), settlement.NewNote(8453, common.Address{2}, 5, "pay_1", content),
	} {
		if other.Hash == a.Hash {
			t.Error("two notes have one hash")
		}
	}
	if new(types.Transaction).UnmarshalBinary(a.Raw) == nil {
		t.Error("a note is a transaction")
	}
	key, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, inner := range []types.TxData{&types.LegacyTx{}, &types.DynamicFeeTx{ChainID: common.Big1}, &types.AccessListTx{ChainID: common.Big1}} {
		tx, err := types.SignNewTx(key, types.LatestSignerForChainID(common.Big1), inner)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := tx.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if _, note := (&settlement.Transaction{Raw: raw}).Note(); note {
			t.Errorf("a transaction of type %d is a note", tx.Type())
		}
	}
	if _, note := new(settlement.Transaction).Note(); note {
		t.Error("nothing is a note")
	}
}
