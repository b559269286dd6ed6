package proof

import (
	"context"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/x402"
)

// transferGas bounds the simulation of a transfer. A payer's contract is a stranger's code: what it may burn is capped.
const transferGas = 600_000

// Simulate runs the transfer of in on the newest block. If it would be executed now, head is a block after which the
// authorization was unused: good as an Intent's ClaimBlock. If it would fail, the error is an *x402.Error with the reason, in
// the reference's order of blame; any other error wraps settlement.ErrUnavailable. Anybody may execute an authorization, so
// that what is true for the payee, who is taken for the sender, is true for all.
func Simulate(ctx context.Context, c *chain.Client, in settlement.Intent) (head uint64, err error) {
	m := chain.Message{From: in.Authorization.To, To: in.Network.Asset.Address, Data: calldata(in), Gas: transferGas}
	var result, code []byte
	call := chain.CallQuery(m, &result)
	head, err = c.Ask(ctx, call, chain.CodeQuery(m.To, &code))
	switch {
	case err != nil:
		return 0, err
	case len(code) == 0: // calls of an address without code succeed
		return 0, NoToken(in.Network)
	case call.Err == nil:
		return head, nil
	}
	return 0, Diagnose(ctx, c, in, transferGas, call.Err)
}

// calldata is the call that executes the authorization, by the overload that its signature needs.
func calldata(in settlement.Intent) []byte {
	if proven(in) {
		return in.Authorization.TransferCalldata(in.Signature)
	}
	return in.Authorization.TransferCalldataBytes(in.Signature)
}

// proven: the payer's own key made the signature. If not, a contract wallet may accept it all the same.
func proven(in settlement.Intent) bool {
	if in.Proven {
		return true
	}
	signer, err := x402.Recover(in.Authorization.Digest(in.Network.Domain().Separator()), in.Signature)
	return err == nil && signer == in.Authorization.From
}
