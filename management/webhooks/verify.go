package webhooks

import (
	"crypto/hmac"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Tolerance is how far a delivery's timestamp may be from the receiver's clock, in both directions.
const Tolerance = 5 * time.Minute

// VerifyCode is why a delivery is not to be believed.
type VerifyCode string

// The codes.
const (
	SecretMissing          VerifyCode = "webhook.secret_missing"
	SignatureMissing       VerifyCode = "webhook.signature_missing"
	SignatureMalformed     VerifyCode = "webhook.signature_malformed"
	TimestampMissing       VerifyCode = "webhook.timestamp_missing"
	TimestampInvalid       VerifyCode = "webhook.timestamp_invalid"
	TimestampOutsideWindow VerifyCode = "webhook.timestamp_outside_window"
	SignatureMismatch      VerifyCode = "webhook.signature_mismatch"
)

var verifyWords = map[VerifyCode]string{
	SecretMissing:          "there is no usable secret to verify with",
	SignatureMissing:       "the request has no webhook-id or no webhook-signature",
	SignatureMalformed:     "webhook-signature holds no signature of version v1",
	TimestampMissing:       "the request has no webhook-timestamp",
	TimestampInvalid:       "webhook-timestamp is not a number of seconds",
	TimestampOutsideWindow: "webhook-timestamp is more than five minutes from now",
	SignatureMismatch:      "the signature does not fit: another secret, or something was changed",
}

// VerifyError says why a delivery is not to be believed.
type VerifyError struct{ Code VerifyCode }

// Error gives the words.
func (e *VerifyError) Error() string { return verifyWords[e.Code] }

// Verify is for those who receive: it answers nil if the request with header h and body is from whoever has secret, and was made within
// Tolerance of now; else a *VerifyError. The body must be the bytes that came, not what a parser made of them.
func Verify(secret string, h http.Header, body []byte, now time.Time) error {
	if CheckSecret(secret) != nil {
		return &VerifyError{SecretMissing}
	}
	w, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return &VerifyError{SecretMissing}
	}
	switch {
	case h.Get(HeaderID) == "", h.Get(HeaderSignature) == "":
		return &VerifyError{SignatureMissing}
	case !strings.Contains(h.Get(HeaderSignature), "v1,"):
		return &VerifyError{SignatureMalformed}
	}
	if err := checkTimestamp(h.Get(HeaderTimestamp), now); err != nil {
		return err
	}
	if w.VerifyIgnoringTimestamp(body, h) != nil {
		return &VerifyError{SignatureMismatch}
	}
	return nil
}

// VerifyCompat is Verify for the header of an endpoint's compatibility mode, `t=<seconds>,v1=<hex>`.
func VerifyCompat(secret string, h http.Header, body []byte, now time.Time) error {
	if secret == "" {
		return &VerifyError{SecretMissing}
	}
	text := h.Get(headerCompatSignature)
	if text == "" {
		return &VerifyError{SignatureMissing}
	}
	var stamp, mac string
	for part := range strings.SplitSeq(text, ",") {
		switch name, value, _ := strings.Cut(strings.TrimSpace(part), "="); name {
		case "t":
			stamp = value
		case "v1":
			mac = value
		}
	}
	if mac == "" {
		return &VerifyError{SignatureMalformed}
	}
	if err := checkTimestamp(stamp, now); err != nil {
		return err
	}
	if !hmac.Equal([]byte(mac), []byte(compatMAC(secret, stamp, body))) {
		return &VerifyError{SignatureMismatch}
	}
	return nil
}

func checkTimestamp(text string, now time.Time) error {
	if text == "" {
		return &VerifyError{TimestampMissing}
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return &VerifyError{TimestampInvalid}
	}
	if d := now.Sub(time.Unix(seconds, 0)); d > Tolerance || d < -Tolerance {
		return &VerifyError{TimestampOutsideWindow}
	}
	return nil
}
