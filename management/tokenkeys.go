package management

import (
	"context"
	"net/http"
	"time"

	"github.com/caddy-x402/caddy-x402/management/apikey"
	tokens "github.com/caddy-x402/caddy-x402/token" // token is a function here
)

const tagTokenKeys = "Keys of tokens"

func (a *API) addTokenKeys() {
	add(a, operation{
		rule: rule{id: "listTokenKeys", method: http.MethodGet, scope: apikey.PaymentsRead}, path: "/v1/token-keys", tag: tagTokenKeys,
		summary:     "Lists the keys that sign tokens, and what each is for now",
		description: "They are of all networks. Their private halves are never shown.",
	}, listTokenKeys)
	add(a, operation{
		rule: rule{id: "rotateTokenKey", method: http.MethodPost, scope: apikey.KeysManage, keyRequired: true}, path: "/v1/token-keys/rotate", tag: tagTokenKeys,
		status: http.StatusCreated, summary: "Adds a key that will sign in place of the one that signs now",
		description: "It is published at once and signs after the lead, when every instance and every upstream knows it. The old one then verifies for the overlap: as long " +
			"as the longest token lives that it may have signed, if nothing is said. An overlap that is shorter is refused unless it is forced. " + wholeHelp,
	}, rotateTokenKey)
	add(a, operation{
		rule: rule{id: "retireTokenKey", method: http.MethodPost, scope: apikey.KeysManage, keyRequired: true}, path: "/v1/token-keys/{id}/retire", tag: tagTokenKeys,
		summary: "Ends a key of tokens before its time",
		description: "One that does not sign yet is taken back. One that signs no more ends now, if that is forced: what it has signed is refused from then on. " +
			"The key that signs can't be retired: rotate first. " + wholeHelp,
	}, retireTokenKey)
}

// TokenKeys look after the keys that sign tokens. What goes wrong they tell as an *Error.
type TokenKeys interface {
	List(ctx context.Context) (TokenKeyList, error)
	Rotate(ctx context.Context, r tokens.Rotation) (TokenKeyList, error)
	// Retire ends the key whose id is, or begins with, the given one.
	Retire(ctx context.Context, id string, force bool) (TokenKeyList, error)
}

// TokenKeyList is the ring of a shop.
type TokenKeyList struct {
	Source string     `json:"source" enum:"storage,configuration" doc:"Where the keys are; those of the configuration are changed there"`
	Data   []TokenKey `json:"data"`
}

// TokenKey is what may be shown of a key that signs tokens.
type TokenKey struct {
	ID                  string     `json:"id" doc:"The kid of its tokens"`
	Algorithm           string     `json:"algorithm" example:"EdDSA"`
	State               string     `json:"state" doc:"What it is for now: signing, next, verifying, ended"`
	CreatedAt           *time.Time `json:"createdAt,omitempty"`
	SignsFrom           *time.Time `json:"signsFrom,omitempty"`
	VerifiesUntil       *time.Time `json:"verifiesUntil,omitempty" doc:"None: until there is a newer one"`
	LongestTokenSeconds int64      `json:"longestTokenSeconds,omitempty" doc:"Of the tokens that it signs, as far as that is known"`
}

// ViewTokenKeys is what may be shown of a ring.
func ViewTokenKeys(source string, keys []tokens.KeyInfo) TokenKeyList {
	out := TokenKeyList{Source: source, Data: []TokenKey{}}
	for i := range keys {
		k := &keys[i]
		out.Data = append(out.Data, TokenKey{
			ID: k.ID, Algorithm: k.Algorithm, State: string(k.State), CreatedAt: moment(k.CreatedAt), SignsFrom: moment(k.SignsFrom),
			VerifiesUntil: moment(k.VerifiesUntil), LongestTokenSeconds: k.LongestToken,
		})
	}
	return out
}

type tokenKeysOutput struct{ Body TokenKeyList }

// ring is the keys of tokens, if there is somebody who looks after them.
func (x *exchange) ring() (TokenKeys, error) {
	if x.shop.TokenKeys == nil {
		return nil, told(http.StatusNotFound, CodeTokenKeysMissing, "there are no keys of tokens here", nil)
	}
	return x.shop.TokenKeys, nil
}

func ringed(list TokenKeyList, err error) (*tokenKeysOutput, error) {
	if err != nil {
		return nil, err
	}
	return &tokenKeysOutput{list}, nil
}

func listTokenKeys(ctx context.Context, x *exchange, _ *struct{}) (*tokenKeysOutput, error) {
	ring, err := x.ring()
	if err != nil {
		return nil, err
	}
	return ringed(ring.List(ctx))
}

type rotateTokenKeyInput struct {
	Body *struct {
		Algorithm      string `json:"algorithm,omitempty" enum:"EdDSA,ES256,RS256" doc:"Default: EdDSA"`
		LeadSeconds    int64  `json:"leadSeconds,omitempty" minimum:"10" maximum:"2592000" doc:"How long it is shown before it signs. Default: 600"`
		OverlapSeconds *int64 `json:"overlapSeconds,omitempty" minimum:"0" maximum:"315360000" doc:"Default: until the last token of the old key has expired"`
		Force          bool   `json:"force,omitempty" doc:"Accept an overlap that ends tokens which were sold"`
	} `required:"false"`
}

func rotateTokenKey(ctx context.Context, x *exchange, in *rotateTokenKeyInput) (*tokenKeysOutput, error) {
	if err := x.whole(); err != nil {
		return nil, err
	}
	ring, err := x.ring()
	if err != nil {
		return nil, err
	}
	var r tokens.Rotation
	if b := in.Body; b != nil {
		r = tokens.Rotation{Algorithm: b.Algorithm, Lead: time.Duration(b.LeadSeconds) * time.Second, Force: b.Force}
		if b.OverlapSeconds != nil {
			overlap := time.Duration(*b.OverlapSeconds) * time.Second
			r.Overlap = &overlap
		}
	}
	return ringed(ring.Rotate(ctx, r))
}

type retireTokenKeyInput struct {
	ID   string `path:"id" maxLength:"128" doc:"Its id, or the beginning of it"`
	Body *struct {
		Force bool `json:"force,omitempty" doc:"End it though tokens that were sold stop working"`
	} `required:"false"`
}

func retireTokenKey(ctx context.Context, x *exchange, in *retireTokenKeyInput) (*tokenKeysOutput, error) {
	if err := x.whole(); err != nil {
		return nil, err
	}
	ring, err := x.ring()
	if err != nil {
		return nil, err
	}
	return ringed(ring.Retire(ctx, in.ID, in.Body != nil && in.Body.Force))
}

// wholeHelp is said of operations that are about all networks.
const wholeHelp = "It is about all networks: a key for test networks may do it only where the configuration serves no others."

// whole refuses a caller who may look after test networks alone what is about all networks.
func (x *exchange) whole() error {
	if x.caller.local() || x.network == Mainnet || x.shop.Lock() == Testnet {
		return nil
	}
	return told(http.StatusForbidden, CodeMainnetNeeded, "this is about all networks, so it needs a key for mainnet", nil)
}
