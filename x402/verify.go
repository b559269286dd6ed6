package x402

import (
	"math"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
)

// Terms are what a payment must meet: one of our own offers, as the configuration has it.
type Terms struct {
	Network Network
	PayTo   common.Address
	// Amount in atomic units; a payment of more or less is refused.
	Amount uint256.Int
	// MinRemaining is how long the authorization must still be good: settling takes a while.
	MinRemaining time.Duration
	// MaxValidity is how far its end may lie ahead; 0 leaves it open.
	MaxValidity time.Duration
}

// Signer is what ECDSA recovery alone says about a payment.
type Signer struct {
	// Recovered is the account that made the signature; zero if it is none of an account.
	Recovered common.Address
	// Proven: the payer itself signed. Not proven means a wrong signature or one of a contract wallet,
	// and only the chain can tell which. For an account with code (EIP-7702) the chain has the last word
	// on settling even so.
	Proven bool
}

// Identify recovers who signed the authorization, under the domain of that separator. It costs one
// recovery and asks nobody.
func (p *Payload) Identify(separator common.Hash) Signer {
	if len(p.Signature) != SignatureLength {
		return Signer{}
	}
	recovered, err := Recover(p.Authorization.Digest(separator), p.Signature)
	if err != nil {
		return Signer{}
	}
	return Signer{Recovered: recovered, Proven: recovered == p.Authorization.From}
}

// Verify judges the payment against t at the time now, in the reference's order: scheme, network,
// signature present, recipient, value, validBefore, validAfter, signature format. (The payload's form and
// its integers come before that, in DecodePayload.) The error is an *Error with the reference's reason.
//
// needsChain: all is well but for the signature, which s does not prove. It may be a contract wallet's, so
// the chain must judge it before anything is claimed; ReasonSignature is the chain's to give.
func (p *Payload) Verify(t Terms, s Signer, now time.Time) (needsChain bool, err error) {
	if err := p.refuseScheme(); err != nil {
		return false, err
	}
	if want := p.networkName(t.Network); p.Network != want || want == "" {
		return false, Refuse(ReasonNetworkMismatch, "network %.40q is not %q; choose one of accepts", p.Network, want)
	}
	if len(p.Signature) == 0 {
		return false, Refuse(ReasonMissingSignature, "payload.signature is missing; sign the authorization")
	}
	a := &p.Authorization
	if a.To != t.PayTo {
		return false, Refuse(ReasonRecipientMismatch, "the authorization pays %s; sign one to %s", a.To, t.PayTo)
	}
	if a.Value != t.Amount {
		return false, Refuse(ReasonValueMismatch, "the authorization is of %s atomic units; sign one of exactly %s",
			a.Value.Dec(), t.Amount.Dec())
	}
	if err := a.refuseTime(t, now); err != nil {
		return false, err
	}
	if len(p.Signature) > MaxSignatureBytes {
		return false, Refuse(ReasonSignatureFormat, "the signature is longer than %d bytes", MaxSignatureBytes)
	}
	if err := refuseUndeployed(p.Signature); err != nil {
		return false, err
	}
	return !s.Proven, nil
}

// networkName is n's name in p's version.
func (p *Payload) networkName(n Network) string {
	if p.Version == 1 {
		return n.V1Name
	}
	return n.ID
}

func (a *Authorization) refuseTime(t Terms, now time.Time) error {
	soonest := seconds(now.Add(t.MinRemaining))
	if a.ValidBefore.Lt(&soonest) {
		return Refuse(ReasonValidBefore, "the authorization ends at %s, too soon to be settled; sign one that ends after %s",
			a.ValidBefore.Dec(), soonest.Dec())
	}
	latest := *uint256.NewInt(math.MaxInt64)
	if t.MaxValidity > 0 {
		latest = seconds(now.Add(t.MaxValidity))
	}
	if a.ValidBefore.Gt(&latest) {
		return Refuse(ReasonValidBefore, "the authorization ends at %s, too far away; sign one that ends before %s",
			a.ValidBefore.Dec(), latest.Dec())
	}
	if current := seconds(now); a.ValidAfter.Gt(&current) {
		return Refuse(ReasonValidAfter, "the authorization begins at %s, after now (%s); sign one that is good already",
			a.ValidAfter.Dec(), current.Dec())
	}
	return nil
}

// seconds is t in whole unix seconds; 0 before 1970.
func seconds(t time.Time) uint256.Int { return *uint256.NewInt(uint64(max(t.Unix(), 0))) }
