package management

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/caddy-x402/caddy-x402/management/apikey"
)

func (a *API) addUsage() {
	add(a, operation{
		rule: rule{id: "getApiKeyUsage", method: http.MethodGet}, path: "/v1/api-keys/usage", tag: tagKeys,
		summary: "Counts the calls with API keys, by day",
		description: "Days are those of UTC. A key that may not manage others sees its own calls. They are written down every ten seconds; those of an instance that was " +
			"killed in it are missing.",
	}, a.keyUsage)
}

type usageInput struct {
	WindowDays int    `query:"windowDays" minimum:"1" maximum:"90" default:"30" doc:"How many days, of which today is the last"`
	Mode       string `query:"mode" enum:"test,live" doc:"Default: that of X-Network"`
	Key        string `query:"key" maxLength:"128" doc:"Only calls with the key of this id"`
}

// DayUsage is how often keys were used on a day.
type DayUsage struct {
	Day    string `json:"day" example:"2026-03-01"`
	Calls  int64  `json:"calls"`
	Errors int64  `json:"errors" doc:"Those of the calls that were answered with a status of 400 or more"`
}

type usageOutput struct {
	Body struct {
		Key    string     `json:"key,omitempty" doc:"The key whose calls they are; none: all"`
		Data   []DayUsage `json:"data" doc:"Oldest first"`
		Calls  int64      `json:"calls"`
		Errors int64      `json:"errors"`
	}
}

// keyUsage tells of the keys of the network that is asked about, and of a caller's own key alone who may not see the others.
func (a *API) keyUsage(ctx context.Context, x *exchange, in *usageInput) (*usageOutput, error) {
	var mode apikey.Mode
	if x.network != "" {
		mode = x.mode()
	}
	key := in.Key
	if k := x.caller.key; k != nil && !slices.Contains(k.Scopes, apikey.KeysManage) {
		if key != "" && key != k.ID {
			return nil, told(http.StatusForbidden, CodeKeyScope, "to see other keys' calls, an API key needs the scope "+string(apikey.KeysManage), nil)
		}
		key = k.ID
	}
	switch asked := apikey.Mode(in.Mode); {
	case asked == "" || asked == mode:
	case mode == "":
		mode = asked
	default:
		return nil, invalid("query.mode", "it is not that of X-Network")
	}
	days, err := a.usage.Used(ctx, x.shop.Store, mode, key, in.WindowDays)
	if err != nil {
		return nil, err
	}
	out := new(usageOutput)
	b := &out.Body
	b.Key, b.Data = key, []DayUsage{}
	for _, d := range days {
		b.Data = append(b.Data, DayUsage{Day: d.Day.Format(time.DateOnly), Calls: d.Calls, Errors: d.Errors})
		b.Calls += d.Calls
		b.Errors += d.Errors
	}
	return out, nil
}

// count counts a call, if it was made with a key.
func (a *API) count(x *exchange, failed error) {
	if x.caller == nil || x.caller.key == nil {
		return
	}
	a.usage.Count(x.caller.key, failed != nil || x.answer.status >= http.StatusBadRequest, x.shop.Store.Now())
}
