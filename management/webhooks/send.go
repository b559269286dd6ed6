package webhooks

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// outcome is how an attempt ended. No reason: the endpoint has it.
type outcome struct {
	at         time.Time
	took       time.Duration
	status     int
	reason     string
	retryAfter time.Duration
}

func (o *outcome) attempt() Attempt {
	return Attempt{At: o.at, Millis: o.took.Milliseconds(), Status: o.status, Reason: o.reason}
}

const (
	userAgent = "caddy-x402-webhooks/1 (Standard Webhooks)"
	// readAnswer is how much of an answer is read, so that its connection can be used again. Nothing of it is kept: it is a stranger's.
	readAnswer = 16 << 10
	// readFor is for how long: whoever never ends its answer has said all that counts by its status.
	readFor = time.Second
)

// send makes one attempt.
func (s *Service) send(ctx context.Context, e *storedEndpoint, secrets []string, d *Delivery) outcome {
	s.mu.Lock()
	client, timeout := s.client, s.settings.Timeout
	s.mu.Unlock()
	o := outcome{at: s.now().UTC()}
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := request(ctx, e, secrets, d, o.at)
	if err != nil {
		o.reason = ReasonRequest
		return o
	}
	res, err := client.Do(r)
	if err != nil {
		o.took, o.reason = time.Since(started), failure(err)
		return o
	}
	enough := time.AfterFunc(readFor, cancel)
	_, _ = io.CopyN(io.Discard, res.Body, readAnswer)
	_ = res.Body.Close()
	enough.Stop()
	o.took, o.status = time.Since(started), res.StatusCode
	if o.reason = verdict(res.StatusCode); o.reason != "" {
		o.retryAfter = retryAfter(res.Header, o.at)
	}
	return o
}

// request makes and signs the request of an attempt.
func request(ctx context.Context, e *storedEndpoint, secrets []string, d *Delivery, at time.Time) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, strings.NewReader(d.Payload))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", userAgent)
	body := []byte(d.Payload)
	if err := sign(r.Header, d.EventID, at, body, secrets); err != nil {
		return nil, err
	}
	if e.Compatibility {
		signCompat(r.Header, d, at, body, secrets)
	}
	return r, nil
}

// verdict is why an answer with this status is none that is good.
func verdict(status int) string {
	switch {
	case status >= 200 && status < 300:
		return ""
	case status >= 300 && status < 400:
		return ReasonRedirect
	case status == http.StatusGone:
		return ReasonGone
	}
	return ReasonStatus
}

// failure sorts what went wrong before there was an answer. Its text would show the endpoint's address.
func failure(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, errAddress):
		return ReasonAddress
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return ReasonTimeout
	case errors.As(err, new(*tls.CertificateVerificationError)), errors.As(err, new(tls.RecordHeaderError)), errors.As(err, new(tls.AlertError)):
		return ReasonTLS
	}
	return ReasonConnection
}
