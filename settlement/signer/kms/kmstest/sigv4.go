package kmstest

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const amzDate = "20060102T150405Z"

// authenticate makes the request's signature again (Signature Version 4), of the headers that it says to have signed, and
// compares.
func (s *Server) authenticate(r *http.Request, body []byte) *refusal {
	given := r.Header.Get("Authorization")
	fields, ok := strings.CutPrefix(given, "AWS4-HMAC-SHA256 ")
	if !ok {
		return bad("MissingAuthenticationTokenException", "Missing Authentication Token")
	}
	var credential string
	var signed []string
	for field := range strings.SplitSeq(fields, ", ") {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "Credential":
			credential = value
		case "SignedHeaders":
			signed = strings.Split(value, ";")
		}
	}
	scope := strings.Split(credential, "/")
	if len(scope) != 5 {
		return bad("IncompleteSignatureException", "")
	}
	if scope[0] != AccessKeyID || r.Header.Get("X-Amz-Security-Token") != s.token {
		return bad("UnrecognizedClientException", "The security token included in the request is invalid.")
	}
	if scope[2] != Region || scope[3] != "kms" {
		return bad("InvalidSignatureException", "Credential should be scoped to a valid region.")
	}
	for _, name := range []string{"host", "x-amz-date", "x-amz-target"} {
		if !slices.Contains(signed, name) {
			return bad("InvalidSignatureException", name+" is not signed")
		}
	}
	if want := sign(r, body, signed, s.token); subtle.ConstantTimeCompare([]byte(want), []byte(given)) != 1 {
		return bad("InvalidSignatureException", "The request signature we calculated does not match the signature you provided. "+
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return nil
}

// sign gives the Authorization header that the request should have.
func sign(r *http.Request, body []byte, headers []string, token string) string {
	at, err := time.Parse(amzDate, r.Header.Get("X-Amz-Date"))
	if err != nil {
		return ""
	}
	again := r.Clone(r.Context())
	again.Header = http.Header{}
	for _, name := range headers {
		if values := r.Header.Values(name); len(values) > 0 {
			again.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	again.ContentLength = int64(len(body))
	hash := sha256.Sum256(body)
	credentials := aws.Credentials{AccessKeyID: AccessKeyID, SecretAccessKey: SecretAccessKey, SessionToken: token}
	if err := v4.NewSigner().SignHTTP(r.Context(), credentials, again, hex.EncodeToString(hash[:]), "kms", Region, at); err != nil {
		return ""
	}
	return again.Header.Get("Authorization")
}
