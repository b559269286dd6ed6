package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

// entry is what the story needs of a line of the access log.
type entry struct {
	Status  int    `json:"status"`
	Payment string `json:"x402_payment"`
	Request struct {
		URI     string      `json:"uri"`
		Headers http.Header `json:"headers"`
	} `json:"request"`
}

// logged looks for what must never be written down.
func (s *story) logged(ctx context.Context) error {
	text, paid, err := s.awaitEntry(ctx)
	if err != nil {
		return err
	}
	s.field("file", "%s, %d lines", s.logFile(), strings.Count(text, "\n"))
	s.field("the paid request", "%s %d, payment %s", paid.Request.URI, paid.Status, paid.Payment)
	s.field("its header", "Payment-Signature: %s", strings.Join(paid.Request.Headers["Payment-Signature"], ", "))
	same(s.paper, "it says that there was a payment header", len(paid.Request.Headers["Payment-Signature"]), 1)
	signature := s.report.Payment
	found := strings.Contains(text, string(signature.Value)) || strings.Contains(text, s.token) || strings.Contains(text, s.key)
	s.check(!found, "neither the payment header, nor the plan's token, nor the API key is anywhere in the log")
	return nil
}

// awaitEntry reads the log until the entry of the payment is there: it is written after the answer.
func (s *story) awaitEntry(ctx context.Context) (string, entry, error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		b, err := os.ReadFile(s.logFile())
		if err != nil {
			return "", entry{}, fmt.Errorf("reading the log: %w", err)
		}
		for line := range strings.Lines(string(b)) {
			var e entry
			if json.Unmarshal([]byte(line), &e) == nil && e.Payment == s.report.PaymentID && e.Status == http.StatusOK {
				return string(b), e, nil
			}
		}
		select {
		case <-ctx.Done():
			return "", entry{}, fmt.Errorf("the log has no entry for the payment %s: %w", s.report.PaymentID, ctx.Err())
		case <-tick.C:
		}
	}
}
