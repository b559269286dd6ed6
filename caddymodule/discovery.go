package caddymodule

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-x402/caddy-x402/x402"
)

// shelf is what a site sells, and the documents that tell of it. Nothing of it changes while the configuration lives.
type shelf struct {
	plans  []planEntry
	routes []entry

	discover, wellKnown, card, llms, skills document
}

// document is an answer that is the same for everybody.
type document struct {
	mime string
	body []byte // nil: there is none
	tag  string
}

func newDocument(mime string, body []byte) document {
	sum := sha256.Sum256(body)
	return document{mime: mime, body: body, tag: `"` + hex.EncodeToString(sum[:16]) + `"`}
}

// documentAge is how long caches may give a document without asking.
const documentAge = "public, max-age=60"

func (d *document) serve(w http.ResponseWriter, r *http.Request) error {
	if d.body == nil {
		return caddyhttp.Error(http.StatusNotFound, fmt.Errorf("%s needs the global option public_url", r.URL.Path))
	}
	h := w.Header()
	h.Set("Cache-Control", documentAge)
	h.Set("ETag", d.tag)
	if matches(r.Header["If-None-Match"], d.tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return write(w, r, http.StatusOK, d.mime, d.body)
}

// matches compares entity tags weakly, as If-None-Match does (RFC 9110, section 13.1.2).
func matches(values []string, tag string) bool {
	for _, v := range values {
		for one := range strings.SplitSeq(v, ",") {
			if one = strings.TrimSpace(one); one == "*" || strings.TrimPrefix(one, "W/") == tag {
				return true
			}
		}
	}
	return false
}

// cataloguePlan is a plan in the documents, as Key0's clients read it.
type cataloguePlan struct {
	PlanID      string `json:"planId"`
	UnitAmount  string `json:"unitAmount,omitempty"`
	Description string `json:"description,omitempty"`
	Free        bool   `json:"free,omitempty"`
}

// catalogueRoute is a route in the documents.
type catalogueRoute struct {
	RouteID     string   `json:"routeId"`
	Method      string   `json:"method"`
	Path        string   `json:"path"`
	UnitAmount  string   `json:"unitAmount,omitempty"`
	Description string   `json:"description,omitempty"`
	Params      []*Param `json:"params,omitempty"`
	// PlanOnly: no price of its own, only a plan opens it.
	PlanOnly bool `json:"planOnly,omitempty"`
	// PriceMoves: what it costs depends on the request, and is said in its offer.
	PriceMoves bool `json:"priceMoves,omitempty"`
}

// catalogueText is `GET /discover`, of which all other documents are made.
type catalogueText struct {
	AgentName   string           `json:"agentName"`
	Description string           `json:"description"`
	Plans       []cataloguePlan  `json:"plans"`
	Routes      []catalogueRoute `json:"routes"`
	// Networks are where it can be paid, in CAIP-2.
	Networks []string `json:"networks"`
}

func (r *catalogueRoute) free() bool { return r.UnitAmount == "" && !r.PlanOnly && !r.PriceMoves }

// fill makes the documents. Only what offers tell anybody anyway is in them.
func (sh *shelf) fill(s *Service) {
	sh.plans, sh.routes = s.app.catalogue.at(s.neighbours())
	c := catalogueText{AgentName: s.Name, Description: s.Description, Plans: []cataloguePlan{}, Routes: []catalogueRoute{}, Networks: s.networks()}
	for _, p := range sh.plans {
		c.Plans = append(c.Plans, cataloguePlan{PlanID: p.id, UnitAmount: unitAmount(p.plan.Price), Description: p.about(), Free: p.plan.Price == free})
	}
	for _, e := range sh.routes {
		c.Routes = append(c.Routes, catalogueRoute{
			RouteID: e.ID, Method: e.Method, Path: e.Path, UnitAmount: e.unitAmount(), Description: e.Description, Params: e.Params,
			PlanOnly: e.price != nil && e.price.Amount == "" && !e.price.isMoving(), PriceMoves: e.price != nil && e.price.isMoving(),
		})
	}
	set := func(d *document, v any) {
		body, err := json.Marshal(v)
		if err != nil {
			s.log.Error("a document can't be made", zap.Error(err))
			return
		}
		*d = newDocument("application/json", body)
	}
	set(&sh.discover, c)
	set(&sh.wellKnown, s.wellKnown(&c))
	if s.app.PublicURL != "" {
		set(&sh.card, s.agentCard(&c))
	}
	sh.llms = newDocument("text/plain; charset=utf-8", []byte(s.llmsText(&c)))
	sh.skills = newDocument("text/markdown; charset=utf-8", []byte(s.skillsText(&c)))
}

func (s *Service) networks() []string {
	list := []string{}
	for _, y := range s.app.payees {
		if !slices.Contains(list, y.Network.ID) {
			list = append(list, y.Network.ID)
		}
	}
	return list
}

// about describes a plan.
func (p *planEntry) about() string {
	if p.plan.Description != "" {
		return p.plan.Description
	}
	if p.handler.Description == "" {
		return ""
	}
	return p.id + ": " + p.handler.Description
}

func (e *entry) unitAmount() string {
	if e.price == nil {
		return ""
	}
	return unitAmount(e.price.Amount)
}

// unitAmount writes a price as Key0 does: $0.10.
func unitAmount(price string) string {
	if price == "" || price == free || strings.Contains(price, "{") {
		return ""
	}
	return "$" + strings.TrimPrefix(price, "$")
}

// wellKnownText is `GET /.well-known/x402`: what can be paid for, for crawlers.
type wellKnownText struct {
	Version     int    `json:"version"`
	X402Version int    `json:"x402Version"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// Resources are addresses that are answered with an offer. Parts that begin with a colon stand for anything.
	Resources []string         `json:"resources"`
	Networks  []string         `json:"networks"`
	Access    string           `json:"access,omitempty"`
	Plans     []cataloguePlan  `json:"plans"`
	Routes    []catalogueRoute `json:"routes"`
}

func (s *Service) wellKnown(c *catalogueText) wellKnownText {
	t := wellKnownText{
		Version: 1, X402Version: 2, Name: c.AgentName, Description: c.Description, Resources: []string{}, Networks: c.Networks,
		Plans: c.Plans, Routes: c.Routes,
	}
	if s.on(partAccess) {
		t.Access = s.app.PublicURL + pathAccess
	}
	for _, r := range c.Routes {
		if !r.free() {
			t.Resources = append(t.Resources, s.app.PublicURL+r.Path)
		}
	}
	if len(c.Plans) > 0 && t.Access != "" {
		t.Resources = append(t.Resources, t.Access)
	}
	return t
}

// agentCard is the card of A2A, protocol version 0.3, with the skills that Key0's has.
type agentCard struct {
	Name               string            `json:"name"`
	Description        string            `json:"description"`
	URL                string            `json:"url"`
	Version            string            `json:"version"`
	ProtocolVersion    string            `json:"protocolVersion"`
	Capabilities       cardCapabilities  `json:"capabilities"`
	DefaultInputModes  []string          `json:"defaultInputModes"`
	DefaultOutputModes []string          `json:"defaultOutputModes"`
	Skills             []cardSkill       `json:"skills"`
	Provider           map[string]string `json:"provider"`
}

type cardCapabilities struct {
	Extensions             []cardExtension `json:"extensions"`
	PushNotifications      bool            `json:"pushNotifications"`
	Streaming              bool            `json:"streaming"`
	StateTransitionHistory bool            `json:"stateTransitionHistory"`
}

type cardExtension struct {
	URI         string `json:"uri"`
	Description string `json:"description"`
	Required    bool   `json:"required"`
}

type cardSkill struct {
	ID          string         `json:"id"`
	Name        string         `json:"name"`
	Description string         `json:"description"`
	Tags        []string       `json:"tags"`
	Examples    []string       `json:"examples,omitempty"`
	InputSchema map[string]any `json:"inputSchema,omitempty"`
}

// extensionA2A is what the payments of an agent are known by.
const extensionA2A = "https://github.com/google-agentic-commerce/a2a-x402/blob/main/spec/v0.2"

func (s *Service) agentCard(c *catalogueText) agentCard {
	address := s.ProviderURL
	if address == "" {
		address = s.app.PublicURL
	}
	card := agentCard{
		Name: c.AgentName, Description: c.Description, URL: s.app.PublicURL + pathAccess, Version: s.Version, ProtocolVersion: "0.3.0",
		DefaultInputModes: []string{"text"}, DefaultOutputModes: []string{"application/json"},
		Provider: map[string]string{"organization": s.Provider, "url": address},
	}
	card.Capabilities.Extensions = []cardExtension{{
		URI: extensionA2A, Required: true, Description: "Supports x402 payments with USDC on " + networkNames(c.Networks) + ".",
	}}
	if s.on(partDiscover) {
		card.Skills = append(card.Skills, cardSkill{
			ID: "discover", Name: "Discover", Tags: []string{"discovery", "catalog", "x402"},
			Description: "Lists plans and routes with their prices: GET " + s.app.PublicURL + pathDiscover,
		})
	}
	if s.on(partAccess) && len(c.Plans) > 0 {
		card.Skills = append(card.Skills, accessSkill(c, s.app.PublicURL))
	}
	for _, r := range c.Routes {
		card.Skills = append(card.Skills, routeSkill(&r, s.app.PublicURL))
	}
	return card
}

func accessSkill(c *catalogueText, base string) cardSkill {
	ids := []string{}
	for _, p := range c.Plans {
		if !p.Free {
			ids = append(ids, p.PlanID)
		}
	}
	return cardSkill{
		ID: "access", Name: "Purchase Plan", Tags: []string{"payment", "x402", "purchase"},
		Description: "Buys a plan and gives its access token: POST " + base + pathAccess + " as JSON over HTTP, paid by the header PAYMENT-SIGNATURE",
		InputSchema: map[string]any{
			"type": "object", "required": []string{"planId"},
			"properties": map[string]any{
				"planId":    map[string]any{"type": "string", "enum": ids},
				"requestId": map[string]any{"type": "string"},
			},
		},
	}
}

func routeSkill(r *catalogueRoute, base string) cardSkill {
	path := r.Path
	for part := range strings.SplitSeq(r.Path, "/") {
		if name, ok := strings.CutPrefix(part, ":"); ok {
			path = strings.Replace(path, part, "<"+name+">", 1)
		}
	}
	k := cardSkill{
		ID:   "ppr-" + r.RouteID + "-" + strings.ToLower(r.Method) + strings.ReplaceAll(strings.ReplaceAll(r.Path, "/", "-"), ":", ""),
		Name: r.Method + " " + r.Path, Description: r.Description, Tags: []string{"pay-per-call", "x402"},
		Examples: []string{r.Method + " " + base + path},
	}
	if k.Description == "" {
		k.Description = k.Name
	}
	if r.free() {
		k.Tags = []string{"free"}
	}
	return k
}

// networkNames are those that people know.
func networkNames(ids []string) string {
	var names []string
	for _, id := range ids {
		name := id
		if n, ok := x402.LookupNetwork(id); ok && n.V1Name != "" {
			name = n.V1Name
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}
