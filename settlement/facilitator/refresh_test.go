package facilitator_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/settlement/facilitator"
	remote "github.com/caddy-x402/caddy-x402/test/facilitator"
)

// Before anybody was asked what it supports, nothing is handed over; afterwards the answer is kept, also while nobody answers.
func TestSupportedIsKept(t *testing.T) {
	clock := newClock()
	s := open(t, 1, options{now: clock.Now})
	s.Must(s.Settler.Ready(s.Ctx()))
	asked := func() int { return len(s.servers[0].Requests("/supported")) }
	if n := asked(); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
	in := s.Claimed()
	s.WantSettled(in, s.Settle(in))
	if n := asked(); n != 1 {
		t.Errorf("each payment asks: %d times", n)
	}
}

// A facilitator that supports another network, or does not say what it supports, gets no payment; one that has no such
// question is taken at its word when the payment comes.
func TestSupportedDecides(t *testing.T) {
	for name, tc := range map[string]struct {
		reply remote.Reply
		ok    bool
	}{
		"another network": {remote.JSON(http.StatusOK, map[string]any{"kinds": []any{}}), false},
		"a page":          {remote.Reply{Body: "<html>"}, false},
		"broken":          {remote.Reply{Status: http.StatusInternalServerError}, false},
		"not authorized":  {remote.Reply{Status: http.StatusUnauthorized}, false},
		"no such thing":   {remote.Reply{Status: http.StatusNotFound}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, 1, options{})
			s.servers[0].Behave(func(c *remote.Call) remote.Reply {
				if c.Path == "/supported" {
					return tc.reply
				}
				return c.Honest()
			})
			s.Settler = s.Start()
			_, err := s.Settler.Check(s.Ctx(), s.Sign(s.Payer, nil))
			if tc.ok && err != nil || !tc.ok && !isUnavailable(err) {
				t.Fatalf("Check: %v", err)
			}
			if tc.ok {
				in := s.Claimed()
				s.WantSettled(in, s.Settle(in))
			}
		})
	}
}

// One that was down at the start is asked again, and gets payments when it is up.
func TestSupportedComesBack(t *testing.T) {
	s := open(t, 1, options{})
	s.servers[0].Behave(func(c *remote.Call) remote.Reply {
		if c.Path == "/supported" && c.N <= 3 {
			return remote.Reply{Status: http.StatusServiceUnavailable}
		}
		return c.Honest()
	})
	s.Settler = s.Start()
	s.WaitFor("it is asked again", func() bool { return s.Settler.Ready(s.Ctx()) == nil })
}

// Reconfiguring keeps what is known of a facilitator that stays, and asks a new one.
func TestReconfigure(t *testing.T) {
	s := open(t, 2, options{})
	one := begin(t, s.dev.URL(), s.Journal, options{}, s.servers[0])
	s.Must(one.Ready(s.Ctx()))
	s.Must(one.Reconfigure(facilitator.Settings{Facilitators: []facilitator.Facilitator{
		{URL: s.servers[1].URL()}, {URL: s.servers[0].URL() + "/", Timeout: time.Minute},
	}}))
	s.Must(one.Ready(s.Ctx()))
	s.Settler = one
	in := s.Claimed()
	s.WantSettled(in, s.Settle(in))
	if s.settled(0) != 0 || s.settled(1) != 1 {
		t.Errorf("%d and %d requests", s.settled(0), s.settled(1))
	}
	for name, wrong := range map[string][]facilitator.Facilitator{
		"none":        nil,
		"twice":       {{URL: s.servers[0].URL()}, {URL: s.servers[0].URL() + "/"}},
		"no address":  {{URL: "nowhere"}},
		"credentials": {{URL: "https://me:secret@example.com"}},
	} {
		if err := one.Reconfigure(facilitator.Settings{Facilitators: wrong}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	in = s.Claimed()
	s.WantSettled(in, s.Settle(in))
}
