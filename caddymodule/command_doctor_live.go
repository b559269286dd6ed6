package caddymodule

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/client"
	"github.com/caddy-x402/caddy-x402/management"
	"github.com/caddy-x402/caddy-x402/management/apikey"
	"github.com/caddy-x402/caddy-x402/management/doctor"
	"github.com/caddy-x402/caddy-x402/management/webhooks"
	"github.com/caddy-x402/caddy-x402/x402"
)

// ask prepares what asks the live things. The second result lets go of it.
func (f *doctorFlags) ask(ctx context.Context, p *patient) (done func(), err error) {
	asker := &payer{payFlags: payFlags{cacert: f.ca, keyEnv: f.keyEnv}}
	hc, err := asker.httpClient()
	if err != nil {
		return nil, invalidRequest("%v", err)
	}
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	live := &doctor.Asked{Now: time.Now, HTTP: hc, PaidURL: f.url, Chains: map[string]doctor.Chain{}}
	closers := []func(){hc.CloseIdleConnections}
	done = func() {
		for _, f := range closers {
			f()
		}
	}
	for i := range p.subject.Networks {
		c, err := newDoctorChain(p.subject.Networks[i].Network, p.app)
		if err != nil {
			done()
			return nil, err
		}
		closers = append(closers, c.close)
		live.Chains[c.network.ID] = c
	}
	instance, err := f.instance(ctx, p)
	if err != nil {
		done()
		return nil, err
	}
	if instance != nil {
		closers = append(closers, instance.close)
		live.Instance = doctorInstance{instance, p.subject.Network()}
	}
	live.Ledger = func(ctx context.Context) error { return pingLedger(ctx, p) }
	live.Probe = func(ctx context.Context, number int) (doctor.Probe, error) { return probeWebhook(ctx, p.hooks, number) }
	if key, err := asker.key(); err == nil && f.pay {
		live.Pay = func(ctx context.Context, url string) (doctor.Payment, error) { return f.buy(ctx, p, hc, key, url) }
	}
	p.subject.Live = live
	return done, nil
}

// instance finds the Caddy that runs; nil: none does.
func (f *doctorFlags) instance(ctx context.Context, p *patient) (*adminClient, error) {
	if f.address != "" {
		return newAdminClient(f.address)
	}
	a, _, _, err := p.configured.running(ctx)
	if a != nil {
		return a, nil // whatever is wrong with its ledger is told by what is asked of it
	}
	return nil, err
}

// pingLedger opens the ledger of the configuration, which demands what it must be set to, and asks whether it takes writes.
func pingLedger(ctx context.Context, p *patient) error {
	s, err := openConfigured(ctx, p.app.StoreRaw)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.store.Ping(ctx); err != nil {
		return fmt.Errorf("the ledger %s takes no writes: %s", s.shown, scrub(err.Error(), string(p.app.StoreRaw)))
	}
	return nil
}

func probeWebhook(ctx context.Context, set *webhooks.Settings, number int) (doctor.Probe, error) {
	if set == nil {
		return doctor.Probe{}, errors.New("the configuration has none that can be used")
	}
	p, err := webhooks.ProbeConfigured(ctx, *set, number, time.Now)
	if err != nil {
		return doctor.Probe{}, err
	}
	return probed(p.Signed, p.Tampered), nil
}

// probed is what a probe comes to: reasons are those of answers other than 2xx.
func probed(signed, tampered webhooks.Attempt) doctor.Probe {
	switch {
	case signed.Reason != "" && signed.Status != 0:
		return doctor.Probe{Signed: fmt.Sprintf("%s (status %d)", client.Printable(signed.Reason, 100), signed.Status)}
	case signed.Reason != "":
		return doctor.Probe{Signed: client.Printable(signed.Reason, 100)}
	case tampered.Reason != "" && tampered.Status == 0:
		return doctor.Probe{Signed: "whether it refuses a wrong signature is not known: " + client.Printable(tampered.Reason, 100)}
	}
	return doctor.Probe{TookForgery: tampered.Reason == ""}
}

// buy pays for an address, and reads the answer to its end.
func (f *doctorFlags) buy(ctx context.Context, p *patient, hc *http.Client, key *ecdsa.PrivateKey, address string) (out doctor.Payment, err error) {
	var networks []x402.Network
	for i := range p.subject.Networks {
		networks = append(networks, p.subject.Networks[i].Network)
	}
	limits, err := client.Limits(f.maxAmount, networks...)
	if err != nil {
		return out, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return out, errors.New("the address can't be asked")
	}
	c := &client.Client{HTTP: hc, Key: key, Limits: limits, OnOffer: func(r *client.Report) error {
		asked := *r.Requirements
		asked.Network = r.Network.ID
		if !p.subject.Takes(&asked) { // what is in front may have made another offer of ours
			return fmt.Errorf("it asks for payment to %s on %s, which is not in this configuration", client.Printable(asked.PayTo, 64), asked.Network)
		}
		return nil
	}}
	res, report, err := c.Do(r)
	if err != nil {
		out.Problem = err.Error()
		return out, nil
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		out.Problem = "the answer broke off"
		return out, nil
	}
	out.Status = res.StatusCode
	if !report.Paid() {
		out.Problem = fmt.Sprintf("it was answered with status %d, and no payment was taken", res.StatusCode)
		return out, nil
	}
	out.Network, out.Transaction = report.Network.ID, common.HexToHash(report.Settlement.Transaction)
	return out, nil
}

// doctorInstance asks the Caddy that runs.
type doctorInstance struct {
	*adminClient
	network string // X-Network, where that must be said
}

// APIKeys implements doctor.Instance.
func (i doctorInstance) APIKeys(ctx context.Context) ([]doctor.APIKey, error) {
	all, err := managedList[management.APIKey](ctx, i.adminClient, "api-keys")
	if err != nil {
		return nil, err
	}
	keys := []doctor.APIKey{}
	for k := range all {
		if d := &all[k]; d.Status == "active" || d.Status == "rotating" {
			keys = append(keys, doctor.APIKey{
				ID: client.Printable(d.ID, 64), Mode: d.Mode, CreatedAt: d.CreatedAt, Superseded: d.RotatedTo != "",
				Consumer: slices.Equal(d.Scopes, []string{string(apikey.Access)}),
			})
		}
	}
	return keys, nil
}

// ofNetwork asks about the webhooks of the network that is configured.
func (i doctorInstance) ofNetwork() *adminClient {
	c := *i.adminClient
	c.network = i.network
	return &c
}

// Webhooks implements doctor.Instance. What an operator has stopped is told nothing, and that is meant so.
func (i doctorInstance) Webhooks(ctx context.Context) ([]doctor.Webhook, error) {
	all, err := managedList[management.Webhook](ctx, i.ofNetwork(), "webhooks")
	if err != nil {
		return nil, err
	}
	var out []doctor.Webhook
	for k := range all {
		w := &all[k]
		gone := w.DisabledReason == webhooks.DisabledGone
		if gone || w.Active && !w.Configured {
			out = append(out, doctor.Webhook{ID: w.ID, URL: w.URL, Live: w.Livemode, Events: w.Events, Gone: gone})
		}
	}
	return out, nil
}

// ProbeWebhook implements doctor.Instance.
func (i doctorInstance) ProbeWebhook(ctx context.Context, id string) (doctor.Probe, error) {
	var answers struct {
		Signed   management.DeliveryAttempt `json:"signed"`
		Tampered management.DeliveryAttempt `json:"tampered"`
	}
	if err := i.ofNetwork().manage(ctx, http.MethodPost, "webhooks/"+url.PathEscape(id)+"/probe", nil, &answers); err != nil {
		return doctor.Probe{}, err
	}
	return probed(webhooks.Attempt{Status: answers.Signed.Status, Reason: answers.Signed.Reason},
		webhooks.Attempt{Status: answers.Tampered.Status, Reason: answers.Tampered.Reason}), nil
}

// TokenKeyAge implements doctor.Instance.
func (i doctorInstance) TokenKeyAge(ctx context.Context) (time.Duration, error) {
	ring, err := ask[keyList](ctx, i.adminClient, adminKeys, nil)
	if err != nil {
		return 0, err
	}
	since := signingSince(ring.Keys)
	if since.IsZero() {
		return 0, nil
	}
	return time.Since(since), nil
}

// States implements doctor.Instance.
func (i doctorInstance) States(ctx context.Context) (map[string]int64, error) {
	counts, err := i.states(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[string]int64, len(counts.States))
	for _, c := range counts.States {
		out[string(c.State)] = c.Payments
	}
	return out, nil
}

// Metrics implements doctor.Instance.
func (i doctorInstance) Metrics(ctx context.Context) (string, error) {
	res, err := i.get(ctx, "/metrics", nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return "", fmt.Errorf("reading the metrics: %w", err)
	}
	return string(b), nil
}

// Interface guards.
var (
	_ doctor.Instance = doctorInstance{}
)
