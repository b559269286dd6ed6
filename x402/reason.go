package x402

import (
	"errors"
	"fmt"
)

// Reason is a stable code that says why a payment was refused. Where the reference implementations have
// a code, it is theirs, so that their clients understand it.
type Reason string

// Error is a refusal: Reason for programs, Detail for people (what is wrong and what to do next).
type Error struct {
	Reason Reason
	Detail string
	Err    error // cause, for logs only
}

// Error gives the code and the detail.
func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("x402: %s: %s: %v", e.Reason, e.Detail, e.Err)
	}
	return fmt.Sprintf("x402: %s: %s", e.Reason, e.Detail)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Refuse makes an *Error; detail and args are as for fmt.Sprintf.
func Refuse(r Reason, detail string, args ...any) *Error {
	return &Error{Reason: r, Detail: fmt.Sprintf(detail, args...)}
}

// ReasonOf gives the code of the *Error in err's chain, or "".
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ""
}

// Reasons that more than one room uses; see verify.go for the order in which they are found.
const (
	ReasonInvalidScheme          Reason = "invalid_exact_evm_scheme"
	ReasonNetworkMismatch        Reason = "invalid_exact_evm_network_mismatch"
	ReasonInvalidPayload         Reason = "invalid_exact_evm_payload"
	ReasonMissingSignature       Reason = "invalid_exact_evm_payload_missing_signature"
	ReasonRecipientMismatch      Reason = "invalid_exact_evm_recipient_mismatch"
	ReasonValueMismatch          Reason = "invalid_exact_evm_payload_authorization_value_mismatch"
	ReasonValidBefore            Reason = "invalid_exact_evm_payload_authorization_valid_before"
	ReasonValidAfter             Reason = "invalid_exact_evm_payload_authorization_valid_after"
	ReasonSignatureFormat        Reason = "invalid_exact_evm_signature_format"
	ReasonSignature              Reason = "invalid_exact_evm_signature"
	ReasonUndeployedWallet       Reason = "invalid_exact_evm_payload_undeployed_smart_wallet"
	ReasonNonceUsed              Reason = "invalid_exact_evm_nonce_already_used"
	ReasonEIP3009NotSupported    Reason = "invalid_exact_evm_eip3009_not_supported"
	ReasonTokenNameMismatch      Reason = "invalid_exact_evm_token_name_mismatch"
	ReasonTokenVersionMismatch   Reason = "invalid_exact_evm_token_version_mismatch"
	ReasonInsufficientBalance    Reason = "invalid_exact_evm_insufficient_balance"
	ReasonSimulationFailed       Reason = "invalid_exact_evm_transaction_simulation_failed"
	ReasonTransactionFailed      Reason = "invalid_exact_evm_transaction_failed"
	ReasonNoMatchingRequirements Reason = "no_matching_payment_requirements"
)

// Reasons that only facilitators give; by the specification, section 9, and by the reference implementation.
const (
	ReasonInvalidRequirements Reason = "invalid_payment_requirements"
	ReasonUnsupportedScheme   Reason = "unsupported_scheme"
	ReasonInvalidNetwork      Reason = "invalid_network"
	ReasonMissingDomain       Reason = "invalid_exact_evm_missing_eip712_domain"
	ReasonPayloadType         Reason = "unsupported_payload_type"
	ReasonAuthorizationValue  Reason = "invalid_exact_evm_authorization_value" // ReasonValueMismatch in version 1
	// ReasonSettlementPending comes with the hash of a transaction whose fate is not known yet: the same is to be asked again.
	ReasonSettlementPending Reason = "settlement_pending"
	// ReasonDuplicateSettlement comes with the hash of a transaction that another request was told of.
	ReasonDuplicateSettlement Reason = "duplicate_settlement"
)

// Reasons of headers that can't be read.
const (
	// ReasonUndecodable: the header is no base64 of a JSON object of this protocol. Answered with 400.
	ReasonUndecodable Reason = "invalid_payload"
	// ReasonInvalidVersion: neither version 1 nor version 2.
	ReasonInvalidVersion Reason = "invalid_x402_version"
)
