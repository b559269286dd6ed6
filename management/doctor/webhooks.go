package doctor

import (
	"context"
	"net/url"
	"slices"
	"strings"
)

func webhookItems() []Item {
	return []Item{
		{
			ID: "webhooks.endpoint", Title: "An endpoint of the right mode is told of payments, by https",
			Why:  "Without it your systems learn of payments and refunds when somebody looks.",
			Do:   "Write `webhook https://… { secret {env.WEBHOOK_SECRET} }`, with `mode live` where both are configured, or `caddy x402 webhooks add`. See webhooks.md.",
			look: lookEndpoint,
		},
		{
			ID: "webhooks.apart", Title: "Test and live endpoints have secrets of their own",
			Why:  "With one secret for both, a test event can be shown to the live receiver as real.",
			Do:   "Make one for each: `whsec_` and the base64 of 32 random bytes.",
			look: lookWebhookSecrets,
		},
		{
			ID: "webhooks.verified", Title: "The receiver takes a signed test, and refuses one that was tampered with", Depth: Live,
			Why:  "A receiver that does not verify believes whoever knows its address.",
			Do:   "Let it verify the signature and the timestamp (five minutes) before anything else; `caddy x402 webhooks verify` says what it should say. After address_refused: `allow_private` of webhooks.md.",
			look: lookReceiver,
		},
	}
}

// configured are the webhooks of the configuration, of the mode that it is for.
func (s *Subject) configured() []Webhook {
	var out []Webhook
	for _, w := range s.Webhooks {
		if w.Live == s.real() {
			out = append(out, w)
		}
	}
	return out
}

// made are those that were made by the management API, and those of the configuration that are gone, as far as somebody may be asked.
func (s *Subject) made(ctx context.Context) ([]Webhook, error) {
	if s.Live == nil || s.Live.Instance == nil {
		return nil, nil
	}
	all, err := s.Live.Instance.Webhooks(ctx)
	return slices.DeleteFunc(all, func(w Webhook) bool { return w.Live != s.real() }), err
}

// told finds an endpoint that is told of an event for which of is true. Those of the configuration need nobody to be asked.
func (s *Subject) told(ctx context.Context, of func(event string) bool) (w Webhook, found bool, err error) {
	fits := func(w Webhook) bool { return !w.Gone && (len(w.Events) == 0 || slices.ContainsFunc(w.Events, of)) }
	all := s.configured()
	if i := slices.IndexFunc(all, fits); i >= 0 {
		return all[i], true, nil
	}
	if all, err = s.made(ctx); err != nil {
		return w, false, err
	}
	if i := slices.IndexFunc(all, fits); i >= 0 {
		return all[i], true, nil
	}
	return w, false, nil
}

// unseen reports whether there may be webhooks that only the instance knows, and that it was not asked.
func (s *Subject) unseen() bool { return s.Live == nil && s.Management != nil }

func lookEndpoint(ctx context.Context, s *Subject) Verdict {
	want := "test"
	if s.real() {
		want = "live"
	}
	w, found, err := s.told(ctx, tellsOfMoney)
	switch {
	case err != nil:
		return bad("%v", err)
	case found:
		if u, err := url.Parse(w.URL); err != nil || u.Scheme != "https" && !s.local() {
			return bad("the %s endpoint is not https", want)
		}
		return good("there is a %s endpoint", want)
	case s.unseen():
		return warn("the configuration has no %s endpoint that is told of payments; those that the management API has made are seen with --live", want)
	}
	return bad("no %s endpoint is told of payments", want)
}

func tellsOfMoney(event string) bool { return strings.HasPrefix(event, "payment.") }

func lookWebhookSecrets(_ context.Context, s *Subject) Verdict {
	for i := range s.Webhooks {
		for k := range s.Webhooks[:i] {
			a, b := &s.Webhooks[i], &s.Webhooks[k]
			if a.Live != b.Live && slices.ContainsFunc(a.Prints, func(p string) bool { return slices.Contains(b.Prints, p) }) {
				return bad("the webhooks number %d and %d have the same secret, and one of them is live", k+1, i+1)
			}
		}
	}
	return good("they have") // the management API makes one for each
}

func lookReceiver(ctx context.Context, s *Subject) Verdict {
	all := s.configured()
	made, err := s.made(ctx)
	if err != nil {
		return bad("%v", err)
	}
	for _, w := range made {
		if w.Gone {
			return bad("%s is told nothing more: it answered 410", hostOf(w.URL))
		}
		if !slices.ContainsFunc(all, func(x Webhook) bool { return x.URL == w.URL }) {
			all = append(all, w)
		}
	}
	seen := 0
	for _, w := range all {
		p, err := s.probe(ctx, w)
		switch {
		case err != nil:
			return bad("%s: %v", hostOf(w.URL), err)
		case p.Signed != "":
			return bad("%s did not take a signed test: %s", hostOf(w.URL), p.Signed)
		case p.TookForgery:
			return bad("%s took a test with a wrong signature", hostOf(w.URL))
		}
		seen++
	}
	if seen == 0 {
		return bad("there is no endpoint to try")
	}
	return good("endpoints: %d", seen)
}

func (s *Subject) probe(ctx context.Context, w Webhook) (Probe, error) {
	if w.ID != "" {
		return s.Live.Instance.ProbeWebhook(ctx, w.ID)
	}
	number := slices.IndexFunc(s.Webhooks, func(x Webhook) bool { return x.URL == w.URL && x.Live == w.Live })
	return s.Live.Probe(ctx, number)
}

// hostOf names an endpoint: its path may be a secret.
func hostOf(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return "the endpoint at " + u.Host
	}
	return "an endpoint"
}
