package paywall

import (
	"strings"

	"github.com/caddy-x402/caddy-x402/x402"
)

// knownCodes are the stable codes of all that may go wrong with a payment, as they stand in answers, in the ledger and in logs.
var knownCodes = map[string]struct{}{}

func init() {
	for _, r := range []x402.Reason{
		x402.ReasonInvalidScheme, x402.ReasonNetworkMismatch, x402.ReasonInvalidPayload, x402.ReasonMissingSignature,
		x402.ReasonRecipientMismatch, x402.ReasonValueMismatch, x402.ReasonValidBefore, x402.ReasonValidAfter, x402.ReasonSignatureFormat,
		x402.ReasonSignature, x402.ReasonUndeployedWallet, x402.ReasonNonceUsed, x402.ReasonEIP3009NotSupported, x402.ReasonTokenNameMismatch,
		x402.ReasonTokenVersionMismatch, x402.ReasonInsufficientBalance, x402.ReasonSimulationFailed, x402.ReasonTransactionFailed,
		x402.ReasonNoMatchingRequirements, x402.ReasonInvalidRequirements, x402.ReasonUnsupportedScheme, x402.ReasonInvalidNetwork,
		x402.ReasonMissingDomain, x402.ReasonPayloadType, x402.ReasonAuthorizationValue, x402.ReasonSettlementPending,
		x402.ReasonDuplicateSettlement, x402.ReasonUndecodable, x402.ReasonInvalidVersion,
		ReasonRefund, ReasonSuperseded, ReasonPlanOver, ReasonUsedUp, ReasonTokenExpired, ReasonTokenRevoked, ReasonTokenInvalid, ReasonOwed,
		ReasonNotOwed, ReasonFreeLimit,
	} {
		knownCodes[string(r)] = struct{}{}
	}
	for _, c := range []string{
		codeStore, codeChain, codeToken, codePending, codeMalformed, codeBody, codeStream, codeBadUpstream, codeKeyInvalid, codeKeyRequired,
		codeKeyConflict, codeInProgress, codeNotStored, codeBodyTooLong, codeNoRoom, codeLimited, codePriceInvalid, codePriceUnavailable,
		codeStale, codeUpstream4xx, codeUpstream5xx, codeGone, codeOvertaken,
		reasonAborted, reasonUpgraded, reasonCutOff, reasonInterrupted, reasonNotCollected, string(ReasonRefundTooDear), reasonOverDay, reasonRefused,
		reasonCancelled, reasonGivenUp, reasonDrawn,
		CodeIssueTimeout, CodeIssueFailed, CodeInvalidRequest, CodePaymentFailed, CodeChallengeExpired, CodeSettlementFailed,
		CodeInternalError, CodeRateLimited, CodeRedeemed,
		codeRateLimit, CodeAPIKeyMissing, CodeAPIKeyInvalid, CodeAPIKeyExpired, CodeAPIKeyRevoked, CodeAPIKeyScope, CodeAPIKeyMismatch,
		CodeNetworkInvalid, CodeNetworkLocked,
	} {
		knownCodes[c] = struct{}{}
	}
}

// Codes by which an upstream's statuses are counted.
const (
	codeUpstream4xx = "upstream_4xx"
	codeUpstream5xx = "upstream_5xx"
)

// otherCode stands for a code that is not ours.
const otherCode = "other"

// KnownReason gives the code by which reason is to be counted, of which there are no more than some hundred: what a facilitator has
// made up is "other", and the statuses of upstreams are "upstream_4xx" and "upstream_5xx".
func KnownReason(reason string) string {
	if _, ok := knownCodes[reason]; ok {
		return reason
	}
	if status, ok := strings.CutPrefix(reason, upstreamStatus); ok && len(status) == 3 {
		switch status[0] {
		case '4':
			return codeUpstream4xx
		case '5':
			return codeUpstream5xx
		}
	}
	return otherCode
}

// OperatorCodes are those that say that something of the operator's does not work, in the order in which that is likely: Key0 calls
// most of them INTERNAL_ERROR. What else goes wrong is the payer's, the upstream's or the chain's affair.
func OperatorCodes() []string {
	return []string{
		codeStore, codeChain, codeToken, codeStale, codePriceUnavailable, codeNoRoom, codeBadUpstream, CodeInternalError,
		CodeIssueTimeout, CodeIssueFailed,
	}
}
