package doctor

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/ethereum/go-ethereum/common"
)

func watchItems() []Item {
	return []Item{
		{
			ID: "events.told", Title: "Payments are told to whoever keeps your books",
			Why:  "Analytics and book-keeping hear of each payment as it happens, and no request waits for them.",
			Do:   "Let a webhook be told of payment.settled, or subscribe to x402's events in Caddy's `events`.",
			look: lookTellers,
		},
		{
			ID: "metrics.on", Title: "Prometheus can read the metrics",
			Why: "Alerts are made of metrics.",
			Do:  "Leave the admin endpoint on, or write `metrics /metrics` into a site of your own.",
			look: func(_ context.Context, s *Subject) Verdict {
				if !s.Metrics {
					return bad("the admin endpoint is off, and no site has the handler metrics")
				}
				return good("it can")
			},
		},
		{
			ID: "metrics.read", Title: "The metrics of payments are there", Depth: Live,
			Why: "A dashboard without data looks as calm as a quiet day.",
			Do:  "Let Prometheus scrape the admin endpoint's /metrics; see observing.md.",
			look: func(ctx context.Context, s *Subject) Verdict {
				if s.Live.Instance == nil {
					return bad("no Caddy answers at the admin endpoint")
				}
				text, err := s.Live.Instance.Metrics(ctx)
				switch {
				case err != nil:
					return bad("%v", err)
				case !strings.Contains(text, "caddy_x402_payments{"):
					return bad("caddy_x402_payments is not among them")
				}
				return good("they are")
			},
		},
		{
			ID: "alerts.rules", Title: "Somebody is called: failed refunds, refunds that pile up, errors, issuers that time out, low gas",
			Why:  "These are the states that nothing but a person ends.",
			Do:   "Load deploy/observe/alerts.yml into Prometheus, and name the file that you load by --alerts.",
			look: lookAlerts,
		},
		{
			ID: "image.pinned", Title: "What is deployed is a certain version",
			Why:  "With `latest` a restart can be an upgrade.",
			Do:   "Write a version or a digest: caddy-x402:1.2.3, caddy-x402@sha256:…. Name the file that says it by --deployment.",
			look: lookImages,
		},
	}
}

func lookTellers(ctx context.Context, s *Subject) Verdict {
	if s.Hooked {
		return good("Caddy's events are subscribed to")
	}
	_, found, err := s.told(ctx, func(event string) bool { return event == "payment.*" || event == "payment.settled" })
	switch {
	case err != nil:
		return bad("%v", err)
	case found:
		return good("a webhook is told")
	case s.unseen():
		return warn("nobody in the configuration is told of payments that are settled; webhooks that the management API has made are seen with --live")
	}
	return bad("nobody is told of payments that are settled")
}

// alerts are what the rules must look at: each at a metric and a label of it, as alertRules writes them.
var alerts = []struct{ what, metric, label string }{
	{"refunds that have failed", "caddy_x402_payments", "refund_failed"},
	{"refunds that pile up", "caddy_x402_payments", "refund_pending"},
	{"errors", "caddy_x402_failures_total", "internal_error"},
	{"issuers that time out", "caddy_x402_failures_total", "token_issue_timeout"},
	{"low gas", "caddy_x402_gas_balance_ether", ""},
}

var (
	// ruleRemark is what YAML and Prometheus leave out, ruleBegins where an entry of a list begins, and ruleCalls is in those that call somebody.
	ruleRemark = regexp.MustCompile(`(?m)(?:^|\s)#.*$`)
	ruleBegins = regexp.MustCompile(`(?m)^\s*-\s+\w+:`)
	ruleCalls  = regexp.MustCompile(`\balert"?\s*:`)
)

// alertRules are those rules of a file, in small letters, that call somebody: none that is commented out, and none that only records.
func alertRules(file string) []string {
	text := strings.ToLower(ruleRemark.ReplaceAllString(file, ""))
	entries := strings.Split(ruleBegins.ReplaceAllString(text, "\x00$0"), "\x00")
	return slices.DeleteFunc(entries, func(entry string) bool { return !ruleCalls.MatchString(entry) })
}

func lookAlerts(_ context.Context, s *Subject) Verdict {
	if s.Alerts == nil {
		return skip("name the rules by --alerts")
	}
	var missing []string
	rules := alertRules(*s.Alerts)
	for _, a := range alerts {
		if !slices.ContainsFunc(rules, func(r string) bool { return strings.Contains(r, a.metric) && strings.Contains(r, a.label) }) {
			missing = append(missing, a.what)
		}
	}
	if len(missing) > 0 {
		return bad("nothing looks at %s", strings.Join(missing, ", "))
	}
	return good("they look at all five")
}

// imageLine finds the images of a compose file, of a manifest of Kubernetes, and of a Dockerfile.
var imageLine = regexp.MustCompile(`(?mi)^\s*(?:-\s*)?(?:image:\s*["']?([^\s"'#]+)|FROM\s+(?:--platform=\S+\s+)?(\S+)(?:\s+AS\s+(\S+))?)`)

func lookImages(_ context.Context, s *Subject) Verdict {
	if s.Deployment == nil {
		return skip("name the compose file, manifest or Dockerfile by --deployment")
	}
	stages := map[string]bool{"scratch": true}
	seen := 0
	for _, m := range imageLine.FindAllStringSubmatch(*s.Deployment, -1) {
		image := m[1] + m[2]
		if !stages[strings.ToLower(image)] {
			seen++
			if !pinned(image) {
				return bad("%s may become another", image)
			}
		}
		if m[3] != "" {
			stages[strings.ToLower(m[3])] = true
		}
	}
	if seen == 0 {
		return bad("it names no image")
	}
	return good("images: %d", seen)
}

// pinned reports whether an image's name is that of one version: a digest, or a tag with a number. A tag that a variable gives is somebody's
// decision.
func pinned(image string) bool {
	if strings.Contains(image, "@sha256:") {
		return true
	}
	_, tag, ok := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	return ok && !strings.HasPrefix(tag, "latest") && (strings.ContainsAny(tag, "0123456789") || strings.Contains(tag, "$"))
}

func payItems() []Item {
	return []Item{{
		ID: "settlement.path", Title: "A payment goes all the way: offer, signature, transfer, answer", Depth: Pay,
		Why:  "It is what you sell by; every part of it can be right, and the whole wrong.",
		Do:   "Look at what the payment says, at `caddy x402 payments show`, and at Caddy's log.",
		look: lookPayment,
	}}
}

func lookPayment(ctx context.Context, s *Subject) Verdict {
	if s.Live.Pay == nil {
		return bad("there is no key to pay with: set X402_PRIVATE_KEY to that of an account with some money")
	}
	address, err := s.paid(ctx)
	if err != nil {
		return bad("%v", err)
	}
	p, err := s.Live.Pay(ctx, address)
	n := s.network(p.Network)
	switch {
	case err != nil:
		return bad("%v", err)
	case p.Problem != "":
		return bad("%s", p.Problem)
	case p.Status != http.StatusOK:
		return bad("it was paid for, and answered with status %d", p.Status)
	case n == nil || p.Transaction == (common.Hash{}):
		return bad("it was answered, and the receipt names no transaction on a network of this configuration")
	}
	there, err := s.Live.Chains[n.ID].Succeeded(ctx, p.Transaction)
	switch {
	case err != nil:
		return bad("the transaction %s can't be looked up: %v", p.Transaction, err)
	case !there:
		return bad("the chain knows of no transaction %s that succeeded", p.Transaction)
	}
	return good("paid by %s on %s", p.Transaction, p.Network)
}
