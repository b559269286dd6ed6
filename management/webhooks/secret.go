package webhooks

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// SecretPrefix begins every secret. What follows is base64 and nothing else: libraries decode it.
const SecretPrefix = "whsec_"

// A secret has 24 to 64 bytes, by the Standard Webhooks specification; ours have 32.
const (
	secretBytes    = 32
	minSecretBytes = 24
	maxSecretBytes = 64
)

// NewSecret makes a secret: whsec_ and 32 random bytes in base64.
func NewSecret() string {
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b) // never fails
	return SecretPrefix + base64.StdEncoding.EncodeToString(b)
}

// CheckSecret refuses what receivers' libraries would not take, or what could be guessed. The error never shows it.
func CheckSecret(s string) error {
	text, ok := strings.CutPrefix(s, SecretPrefix)
	if !ok {
		return errors.New("a webhook's secret begins with " + SecretPrefix)
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return errors.New("what follows " + SecretPrefix + " in a webhook's secret must be base64, with its padding")
	}
	if len(b) < minSecretBytes || len(b) > maxSecretBytes {
		return fmt.Errorf("a webhook's secret has %d to %d bytes, and this one has %d; make one with `openssl rand -base64 32`",
			minSecretBytes, maxSecretBytes, len(b))
	}
	return nil
}

// The headers of a delivery.
const (
	HeaderID        = standardwebhooks.HeaderWebhookID
	HeaderTimestamp = standardwebhooks.HeaderWebhookTimestamp
	HeaderSignature = standardwebhooks.HeaderWebhookSignature

	// Those of receivers that were written for Blockchain0x, if the endpoint asks for them.
	headerCompatSignature = "X-Blockchain0x-Signature"
	headerCompatTimestamp = "X-Blockchain0x-Timestamp"
	headerCompatType      = "X-Blockchain0x-Event-Type"
	headerCompatEvent     = "X-Blockchain0x-Event-Id"
	headerCompatDelivery  = "X-Blockchain0x-Delivery-Id"
)

// sign writes the headers that prove body to whoever has one of the secrets, the newest of which comes first. The timestamp is that of
// the attempt, not of the event: receivers refuse what is older than five minutes.
func sign(h http.Header, id string, at time.Time, body []byte, secrets []string) error {
	signatures := make([]string, 0, len(secrets))
	for _, s := range secrets {
		w, err := standardwebhooks.NewWebhook(s)
		if err != nil {
			return errors.New("signing: the endpoint's secret is not well formed") // the cause may show some of it
		}
		signature, err := w.Sign(id, at, body)
		if err != nil {
			return errors.New("signing: the endpoint's secret can't be used")
		}
		signatures = append(signatures, signature)
	}
	if len(signatures) == 0 {
		return errors.New("signing: the endpoint has no secret")
	}
	h.Set(HeaderID, id)
	h.Set(HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	h.Set(HeaderSignature, strings.Join(signatures, " "))
	return nil
}

// signCompat adds the headers that receivers written for Blockchain0x look at. Those try one signature alone, so during an overlap
// it is made with the older secret, which they have until it ends.
func signCompat(h http.Header, d *Delivery, at time.Time, body []byte, secrets []string) {
	stamp := strconv.FormatInt(at.Unix(), 10)
	h.Set(headerCompatSignature, "t="+stamp+",v1="+compatMAC(secrets[len(secrets)-1], stamp, body))
	h.Set(headerCompatTimestamp, stamp)
	h.Set(headerCompatType, d.EventType)
	h.Set(headerCompatEvent, d.EventID)
	h.Set(headerCompatDelivery, d.ID)
}

// compatMAC is keyed by the secret's text as it is.
func compatMAC(secret, stamp string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(stamp + "."))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}
