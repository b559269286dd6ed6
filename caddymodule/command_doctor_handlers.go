package caddymodule

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/holiman/uint256"

	"github.com/caddy-x402/caddy-x402/management/doctor"
	"github.com/caddy-x402/caddy-x402/token/remote"
	"github.com/caddy-x402/caddy-x402/x402"
)

// readHandlers finds this module's handlers, wherever they stand in the sites' routes.
func (p *patient) readHandlers(http json.RawMessage) {
	s := &p.subject
	visitHandlers(http, func(name string, raw json.RawMessage) {
		switch name {
		case "x402":
			h := new(Handler)
			if json.Unmarshal(raw, h) == nil {
				p.readHandler(h)
			}
		case "x402_service":
			s.Service = true
		case "x402_management":
			m := new(Management)
			if json.Unmarshal(raw, m) == nil {
				s.Management = &doctor.Management{KeyMaxAge: time.Duration(m.KeyMaxAge), IdempotencyTTL: time.Duration(m.IdempotencyTTL), Unlimited: m.Unlimited}
			}
		case "metrics":
			s.Metrics = true
		}
	})
}

func (p *patient) readHandler(h *Handler) {
	out := doctor.Handler{Name: h.Name, Idempotency: "optional", CORS: h.CORS == nil || !h.CORS.Disabled, Upfront: len(h.Plans) > 0}
	if out.Name == "" {
		out.Name = "site" // as when it is provisioned
	}
	if h.CORS != nil {
		out.Origins = h.CORS.Origins
	}
	for _, l := range h.RateLimits {
		if l != nil {
			out.Limits = append(out.Limits, l.By)
		}
	}
	if h.Idempotency != nil && h.Idempotency.Mode != "" {
		out.Idempotency = h.Idempotency.Mode
	}
	price := func(what, amount string) {
		if amount == "" || amount == free {
			return
		}
		out.Prices = append(out.Prices, doctor.Price{What: what, Amount: amount})
		p.dearest(amount)
	}
	for _, r := range h.Prices {
		if r == nil {
			continue
		}
		what := r.Name
		if what == "" {
			what = "requests"
		}
		price(what, r.Amount)
		price(what, r.Max)
		out.Upfront = out.Upfront || cmp.Or(r.Flow, h.Flow) != x402.FlowAuthorization // as checkFlows has it
	}
	for _, plan := range h.Plans {
		if plan == nil {
			continue
		}
		price("plan "+plan.Name, plan.Price)
		if i := plan.Issuer; i != nil {
			p.issuer(i)
		}
	}
	p.subject.Handlers = append(p.subject.Handlers, out)
}

// dearest keeps the highest price of each network.
func (p *patient) dearest(amount string) {
	for i := range p.subject.Networks {
		n := &p.subject.Networks[i]
		if v, err := x402.ParseAmount(strings.TrimPrefix(amount, "$"), n.Asset.Decimals); err == nil && v.Gt(&n.Dearest) {
			n.Dearest = *new(uint256.Int).Set(&v)
		}
	}
}

// issuer keeps how long the slowest one may take.
func (p *patient) issuer(i *Issuer) {
	timeout, retries := time.Duration(i.Timeout), remote.DefaultRetries
	if timeout <= 0 {
		timeout = remote.DefaultTimeout
	}
	if i.Retries != nil {
		retries = *i.Retries
	}
	p.subject.Issuers = max(p.subject.Issuers, timeout*time.Duration(retries+1))
}

// readSecrets looks through the whole configuration, and closer at what is this module's.
func (p *patient) readSecrets(raw []byte, c *doctorConfig) {
	scan := newSecretScan()
	var all struct {
		Apps map[string]any `json:"apps"`
	}
	_ = json.Unmarshal(raw, &all) // it was read before
	for _, name := range [...]string{"tls", "pki"} {
		delete(all.Apps, name)
	}
	for name, app := range all.Apps {
		scan.shaped("apps/"+name, app)
	}
	own := func(path string, part json.RawMessage) {
		var v any
		if json.Unmarshal(part, &v) != nil {
			return
		}
		scan.fields(path, v)
	}
	own("apps/x402", c.Apps.X402)
	visitHandlers(c.Apps.HTTP, func(name string, part json.RawMessage) {
		if strings.HasPrefix(name, "x402") {
			own("handler "+name, part)
		}
	})
	slices.Sort(scan.literals)
	p.subject.Literals, p.subject.Secrets = scan.literals, scan.secrets
}

// visitHandlers visits the handlers in the routes of sites.
func visitHandlers(part json.RawMessage, visit func(name string, raw json.RawMessage)) {
	var list []json.RawMessage
	if json.Unmarshal(part, &list) == nil {
		for _, e := range list {
			visitHandlers(e, visit)
		}
		return
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(part, &fields) != nil {
		return
	}
	var name string
	if json.Unmarshal(fields["handler"], &name) == nil && name != "" {
		visit(name, part)
	}
	keys := make([]string, 0, len(fields))
	for key := range fields {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		visitHandlers(fields[key], visit)
	}
}
