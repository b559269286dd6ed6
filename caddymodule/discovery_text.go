package caddymodule

import (
	"fmt"
	"strings"
)

// inText keeps what a seller has written from breaking the lines of a text.
func inText(s string) string { return strings.Join(strings.Fields(s), " ") }

// llmsText is /llms.txt: where things are, in few words.
func (s *Service) llmsText(c *catalogueText) string {
	var b strings.Builder
	base := s.app.PublicURL
	fmt.Fprintf(&b, "# %s\n\n", inText(c.AgentName))
	if c.Description != "" {
		fmt.Fprintf(&b, "> %s\n\n", inText(c.Description))
	}
	b.WriteString("Payments are made in USDC by x402 (version 2) on " + networkNames(c.Networks) + ".\n\n## Canonical Endpoints\n\n")
	line := func(part, text string) {
		if part == "" || s.on(part) {
			b.WriteString("- " + text + "\n")
		}
	}
	line(partDiscover, "GET "+base+pathDiscover+": plans and routes with their prices")
	line(partAccess, "POST "+base+pathAccess+": buy a plan, or call a route by its id")
	line("", "GET "+base+pathPayments+"{id}: what became of a payment")
	if base != "" {
		line(partAgentCard, "GET "+base+pathAgentCard+": the agent card")
	}
	line(partSkills, "GET "+base+pathSkills+": how to buy, step by step")
	fmt.Fprintf(&b, "\n## Catalog\n\n%d plans, %d routes.\n", len(c.Plans), len(c.Routes))
	if len(c.Plans) > 0 {
		b.WriteString("\n## Subscription Plans\n\n" + planLines(c))
	}
	if len(c.Routes) > 0 {
		b.WriteString("\n## Pay-Per-Call Routes\n\n" + routeLines(c))
	}
	return b.String()
}

func planLines(c *catalogueText) string {
	var b strings.Builder
	for _, p := range c.Plans {
		fmt.Fprintf(&b, "- %s: %s%s\n", p.PlanID, costText(p.UnitAmount), described(p.Description))
	}
	return b.String()
}

func routeLines(c *catalogueText) string {
	var b strings.Builder
	for _, r := range c.Routes {
		cost := costText(r.UnitAmount)
		if r.PlanOnly {
			cost = "with a plan"
		}
		if r.PriceMoves {
			cost = "as its offer says"
		}
		fmt.Fprintf(&b, "- %s: %s %s, %s%s\n", r.RouteID, r.Method, r.Path, cost, described(r.Description))
		for _, p := range r.Params {
			need := "optional"
			if p.Required {
				need = "required"
			}
			fmt.Fprintf(&b, "  - %s (%s, %s, %s)%s\n", inText(p.Name), p.In, p.Type, need, described(p.Description))
		}
	}
	return b.String()
}

func costText(amount string) string {
	if amount == "" {
		return "free"
	}
	return amount
}

func described(text string) string {
	if text == "" {
		return ""
	}
	return ". " + inText(text)
}

// skillsText is /skills.md: how an agent buys.
func (s *Service) skillsText(c *catalogueText) string {
	var b strings.Builder
	base := s.app.PublicURL
	fmt.Fprintf(&b, "# Buying from %s\n\n", inText(c.AgentName))
	if c.Description != "" {
		b.WriteString(inText(c.Description) + "\n\n")
	}
	b.WriteString("Prices are in USDC on " + networkNames(c.Networks) + ". Nothing but a signature is needed: no account, and no gas.\n")
	if len(c.Plans) > 0 {
		b.WriteString("\n## Plans\n\nPaid once; the answer holds an access token.\n\n" + planLines(c))
	}
	if len(c.Routes) > 0 {
		b.WriteString("\n## Routes\n\nPaid per call, at their own address or by their id.\n\n" + routeLines(c))
	}
	if s.on(partAccess) && len(c.Plans) > 0 {
		b.WriteString(strings.ReplaceAll(`
## To buy a plan

1. POST {base}/x402/access with {"planId": "…", "requestId": "<a new UUID>"}. The answer is 402; its header PAYMENT-REQUIRED is base64 of JSON.
2. Sign one of its "accepts" (EIP-3009 TransferWithAuthorization, EIP-712) and send the same request again with the header PAYMENT-SIGNATURE:
   base64 of {"x402Version": 2, "accepted": …, "payload": {"signature": …, "authorization": …}, "resource": …, "extensions": …}, the last two as
   they were in the offer.
3. The answer is 200 with an AccessGrant. Send its accessToken as Authorization: Bearer.
`, "{base}", base))
	}
	if s.on(partAccess) && len(c.Routes) > 0 {
		b.WriteString(strings.ReplaceAll(`
## To call a route

Call it at its own address: the answer to a request without payment is 402, and is paid as above. Or POST {base}/x402/access with
{"routeId": "…", "resource": {"method": "GET", "path": "…"}}: the answer is a ResourceResponse, with the route's own status and body in "resource".
`, "{base}", base))
	}
	b.WriteString(`
## When something goes wrong

- 503 with Retry-After: send the very same request again, with the same PAYMENT-SIGNATURE. Do not sign again: you might pay twice.
- 402 after you have paid: the body says why. Sign anew only if it says that nothing was charged.
- 410: what you asked for has expired or was cancelled. Ask again, with a new requestId.
`)
	return b.String()
}
