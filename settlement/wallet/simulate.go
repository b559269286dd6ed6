package wallet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/chain"
	"github.com/caddy-x402/caddy-x402/settlement/proof"
	"github.com/caddy-x402/caddy-x402/x402"
)

// burnedFor is how long nothing is sent for a payer whose code has accepted a transfer that then failed at our cost: it would cost
// its owner nothing to do that again and again.
const burnedFor = 10 * time.Minute

// freshness is how long a check stands for the simulation right before sending.
const freshness = time.Second

// verdict says that a transfer would be executed.
type verdict struct {
	// head is a block after which the authorization was unused.
	head uint64
	// gas is the limit to send the transfer with, alone.
	gas uint64
	// alone: it must not travel with others. The payer's code judges it, and that is a stranger's; or a transaction with a
	// payment of this payer has failed before.
	alone bool
	at    time.Time
}

// unavailable wraps err as "ask again later".
func unavailable(err error) error {
	if errors.Is(err, settlement.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", settlement.ErrUnavailable, err)
}

// simulate runs the transfer on the newest block, from the wallet and with the gas that it would be sent
// with. A transfer that fails gives an *x402.Error; everything else wraps settlement.ErrUnavailable.
func (s *Settler) simulate(ctx context.Context, in settlement.Intent, t transfer) (verdict, error) {
	if there, err := s.token.exists(ctx, s.chain); err != nil {
		return verdict{}, err
	} else if !there {
		return verdict{}, proof.NoToken(s.network)
	}
	if !t.proven {
		return s.simulateContract(ctx, in, t)
	}
	return s.simulateShared(ctx, in, t)
}

// simulateAlone does it for a payer whose own key has signed.
func (s *Settler) simulateAlone(ctx context.Context, in settlement.Intent, t transfer) (verdict, error) {
	v := verdict{gas: s.set().GasLimit, at: s.now()}
	var result, code []byte
	q := chain.CallQuery(s.message(t, v.gas), &result)
	head, err := s.chain.Ask(ctx, q, chain.CodeQuery(in.Authorization.From, &code))
	if err != nil {
		return verdict{}, err
	}
	v.head = head
	if len(code) > 0 {
		// An account that runs code (EIP-7702) is judged by that code, which may need more gas.
		return s.simulateContract(ctx, in, t)
	}
	if q.Err == nil {
		_, v.alone = s.isolated.get(in.Authorization.From)
		return v, nil
	}
	return verdict{}, s.diagnose(ctx, in, q.Err)
}

// simulateContract does it for a payer whose code judges the signature. The code is a stranger's: what it
// may burn is capped, and the transfer is sent with little more gas than it needs.
func (s *Settler) simulateContract(ctx context.Context, in settlement.Intent, t transfer) (verdict, error) {
	most := s.set().ContractGas
	v := verdict{at: s.now(), alone: true}
	var result []byte
	var gas uint64
	m := s.message(t, most)
	call, estimate := chain.CallQuery(m, &result), chain.EstimateQuery(m, &gas)
	head, err := s.chain.Ask(ctx, call, estimate)
	if err != nil {
		return verdict{}, err
	}
	if failed := errors.Join(call.Err, estimate.Err); failed != nil {
		return verdict{}, s.diagnose(ctx, in, failed)
	}
	if at, ok := s.burned.get(in.Authorization.From); ok && s.now().Sub(at) < burnedFor {
		return verdict{}, x402.Refuse(x402.ReasonTransactionFailed,
			"a transfer failed on the chain that the code of %s had accepted; come back in some minutes, or pay from another account", in.Authorization.From)
	}
	v.head, v.gas = head, min(gas+gas/4+20_000, most)
	return v, nil
}

func (s *Settler) message(t transfer, gas uint64) chain.Message {
	return chain.Message{From: s.lanes[0].address, To: s.network.Asset.Address, Data: t.data, Gas: gas}
}

// diagnose finds why a transfer fails; cause as in proof.Diagnose.
func (s *Settler) diagnose(ctx context.Context, in settlement.Intent, cause error) error {
	in.Network = s.network
	return proof.Diagnose(ctx, s.chain, in, s.set().ContractGas, cause)
}
