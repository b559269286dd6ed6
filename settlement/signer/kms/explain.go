package kms

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/caddy-x402/caddy-x402/settlement"
)

const (
	checkKey         = "check the key's id, its region and its account"
	checkCredentials = "check the credentials, and this machine's clock"
)

// advice is what to do about the service's refusals that stay until somebody does something. Every other error goes away,
// or is one of ours.
var advice = map[string]string{
	"AccessDeniedException":               "allow kms:GetPublicKey and kms:Sign on the key to these credentials, in IAM or in the key's policy",
	"DisabledException":                   "enable the key with `aws kms enable-key`, or name another",
	"KMSInvalidStateException":            "if the key is to be deleted, stop that with `aws kms cancel-key-deletion` and enable it, or name another",
	"NotFoundException":                   checkKey,
	"InvalidArnException":                 checkKey,
	"InvalidAliasNameException":           checkKey,
	"ValidationException":                 checkKey,
	"InvalidKeyUsageException":            "the key is not for SIGN_VERIFY with secp256k1; " + newKey,
	"UnsupportedOperationException":       "the key is not for SIGN_VERIFY with secp256k1; " + newKey,
	"UnrecognizedClientException":         checkCredentials,
	"InvalidClientTokenId":                checkCredentials,
	"InvalidSignatureException":           checkCredentials,
	"SignatureDoesNotMatch":               checkCredentials,
	"IncompleteSignature":                 checkCredentials,
	"IncompleteSignatureException":        checkCredentials,
	"MissingAuthenticationToken":          checkCredentials,
	"MissingAuthenticationTokenException": checkCredentials,
	"ExpiredToken":                        "the credentials have expired; renew them",
	"ExpiredTokenException":               "the credentials have expired; renew them",
}

// unavailableError is settlement.ErrUnavailable in the service's words: it is no chain that did not answer.
type unavailableError struct {
	text  string
	cause error
}

func (e *unavailableError) Error() string { return "kms: " + e.text }

func (e *unavailableError) Unwrap() []error { return []error{settlement.ErrUnavailable, e.cause} }

// explain says of an error what it means and what to do: an error of ErrConfig, or else of settlement.ErrUnavailable.
func (s *Signer) explain(ctx context.Context, doing string, err error) error {
	what := doing + " " + s.key + ": "
	if missing, ok := errors.AsType[*credentialsError](err); ok {
		what += "no AWS credentials: " + printable(missing.Error()) + "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role"
		return &unavailableError{what, err}
	}
	if refusal, ok := errors.AsType[smithy.APIError](err); ok {
		what += describe(refusal, err)
		if todo, ok := advice[refusal.ErrorCode()]; ok {
			return fmt.Errorf("%w: %s; %s", ErrConfig, what, todo)
		}
		return &unavailableError{what, err}
	}
	if ctx.Err() != nil {
		return &unavailableError{what + ctx.Err().Error(), ctx.Err()}
	}
	return &unavailableError{what + printable(err.Error()), err}
}

// describe gives a refusal's code and text, as far as there are any, and the status of its answer.
func describe(refusal smithy.APIError, err error) string {
	code, text := printable(refusal.ErrorCode()), strings.TrimRight(printable(refusal.ErrorMessage()), ". ")
	if text != "" && text != code {
		code += ": " + text
	}
	if answer, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		code += fmt.Sprintf(" (%d)", answer.HTTPStatusCode())
	}
	return code
}

const maxText = 400

// printable cuts a stranger's text, and leaves out what a terminal would obey.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if runes := []rune(s); len(runes) > maxText {
		return string(runes[:maxText]) + "…"
	}
	return s
}
