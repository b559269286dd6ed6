package facilitator_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-x402/caddy-x402/settlement"
	"github.com/caddy-x402/caddy-x402/settlement/facilitator"
	remote "github.com/caddy-x402/caddy-x402/test/facilitator"
	"github.com/caddy-x402/caddy-x402/x402"
)

// behaviours of facilitators that have settled, and don't say so properly: each payment is found settled all the same.
func TestSettledWhateverIsSaid(t *testing.T) {
	huge := strings.Repeat("x", 1<<20)
	for name, f := range map[string]func(*remote.Call) remote.Reply{
		"drops": func(c *remote.Call) remote.Reply {
			_, _ = c.Settle()
			return remote.Reply{Drop: true}
		},
		"answers slowly": func(c *remote.Call) remote.Reply {
			_, _ = c.Settle()
			return remote.Reply{Delay: time.Minute}
		},
		"says no": func(c *remote.Call) remote.Reply {
			_, _ = c.Settle()
			return c.Refuse("insufficient_funds", common.Hash{})
		},
		"says no before its block": func(c *remote.Call) remote.Reply {
			_, _ = c.Send()
			return c.Refuse("unexpected_settle_error", common.Hash{})
		},
		"says no with 500": func(c *remote.Call) remote.Reply {
			_, _ = c.Settle()
			return remote.JSON(http.StatusInternalServerError, map[string]any{"success": false, "errorReason": "unexpected_settle_error"})
		},
		"breaks": func(c *remote.Call) remote.Reply {
			_, _ = c.Settle()
			return remote.Reply{Status: 502, Body: "bad gateway"}
		},
		"garbage":     func(c *remote.Call) remote.Reply { _, _ = c.Settle(); return remote.Reply{Body: "<html>"} },
		"huge answer": func(c *remote.Call) remote.Reply { _, _ = c.Settle(); return remote.Reply{Body: huge} },
		"says nothing": func(c *remote.Call) remote.Reply {
			_, _ = c.Settle()
			return remote.Reply{Status: http.StatusNoContent}
		},
		"names another transaction": func(c *remote.Call) remote.Reply {
			_, _ = c.Settle()
			return c.Success(common.Hash{1})
		},
		"names none": func(c *remote.Call) remote.Reply {
			_, _ = c.Settle()
			return remote.JSON(http.StatusOK, map[string]any{"success": true, "transaction": "", "network": "eip155:84532"})
		},
		"speaks of another payer": func(c *remote.Call) remote.Reply {
			hash, _ := c.Settle()
			return remote.JSON(http.StatusOK, map[string]any{
				"success": true, "transaction": hash, "network": "eip155:84532", "payer": common.Address{1},
			})
		},
		"sends us elsewhere": func(c *remote.Call) remote.Reply {
			_, _ = c.Settle()
			return remote.Reply{Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {"http://192.0.2.1/settle"}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := options{patience: 20 * time.Second} // the chain shows it, however busy the machine is
			if name == "answers slowly" {
				o.patience = 0 // or it would not be looked at sooner
			}
			s := open(t, 1, o)
			does(s.servers[0], f)
			in := s.Claimed()
			started := time.Now()
			s.WantSettled(in, s.Settle(in))
			s.WantReceived(1)
			if n, took := s.settled(0), time.Since(started); n != 1 || took > 45*time.Second {
				t.Errorf("%d requests to settle, in %s", n, took)
			}
			s.WantSettled(in, s.Settle(in)) // nobody is asked again
			if n := s.settled(0); n != 1 {
				t.Errorf("%d requests to settle after it was settled", n)
			}
		})
	}
}

// behaviours of facilitators that have settled nothing, whatever they say: no payment counts as settled, and none as failed while
// the authorization is in their hands.
func TestNotSettledWhateverIsSaid(t *testing.T) {
	for name, f := range map[string]func(*remote.Call) remote.Reply{
		"lies": func(c *remote.Call) remote.Reply { return c.Success(common.Hash{1}) },
		"says no": func(c *remote.Call) remote.Reply {
			return c.Refuse("invalid_exact_evm_insufficient_balance", common.Hash{})
		},
		"says no, used": func(c *remote.Call) remote.Reply {
			return c.Refuse("invalid_exact_evm_nonce_already_used", common.Hash{})
		},
		"pending": func(c *remote.Call) remote.Reply { return c.Refuse("settlement_pending", common.Hash{2}) },
		"drops":   func(*remote.Call) remote.Reply { return remote.Reply{Drop: true} },
		"500":     status(http.StatusInternalServerError),
		"404":     status(http.StatusNotFound),
		"a page":  status(http.StatusOK),
		"success in 500": func(*remote.Call) remote.Reply {
			return remote.JSON(500, map[string]any{"success": true, "transaction": common.Hash{1}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, 1, options{})
			does(s.servers[0], f)
			in := s.Claimed()
			out := s.Settler.Settle(s.CtxFor(time.Second), in)
			if out.Status != settlement.Unknown || out.Err == nil {
				t.Fatalf("got %+v, want unknown", out)
			}
			if out := s.Resolve(in); out.Status != settlement.Unknown || out.Err != nil {
				t.Errorf("got %+v, want: not yet", out)
			}
			s.WantReceived(0)
			s.WantRecorded(in, 1)
			// The payer comes back with the same header, and the facilitator has come to its senses.
			s.servers[0].Behave(nil)
			s.WantSettled(in, s.Settle(in))
			s.WantReceived(1)
			s.WantRecorded(in, 1)
			requests := s.servers[0].Requests("/settle")
			for _, r := range requests {
				if !bytes.Equal(r.Body, requests[0].Body) {
					t.Error("the requests for one payment differ")
				}
			}
		})
	}
}

// A facilitator that never settles what it was handed fails in the end, when nobody can settle it any more.
func TestRefusedUntilTheEnd(t *testing.T) {
	s := open(t, 1, options{})
	does(s.servers[0], func(c *remote.Call) remote.Reply { return c.Refuse("unexpected_settle_error", common.Hash{}) })
	in := s.Claimed()
	if out := s.Settle(in); out.Status != settlement.Unknown {
		t.Fatalf("got %+v", out)
	}
	s.Must(s.dev.AdvanceTime(time.Hour))
	out := s.Resolve(in)
	s.WantFailed(out, x402.ReasonValidBefore)
	s.WantFailed(s.Settle(in), x402.ReasonValidBefore)
	if n := s.settled(0); n != 1 {
		t.Errorf("%d requests to settle", n)
	}
}

// The transaction of another payment, even one of the same payer and amount, settles nothing.
func TestAnothersTransaction(t *testing.T) {
	s := open(t, 1, options{})
	first := s.Claimed()
	paid := s.Settle(first)
	s.WantSettled(first, paid)
	does(s.servers[0], func(c *remote.Call) remote.Reply { return c.Success(paid.Transaction) })
	second := s.Claimed()
	started := time.Now()
	if out := s.Settle(second); out.Status != settlement.Unknown || out.Err == nil {
		t.Fatalf("got %+v", out)
	}
	if took := time.Since(started); took > 45*time.Second {
		t.Errorf("a lie that is found out at once took %s", took)
	}
	s.WantReceived(1)
}

// A pending settlement is looked up on the chain; where that does not show it, it gets one identical request more, and no
// further one.
func TestSettlementPending(t *testing.T) {
	t.Run("mined meanwhile", func(t *testing.T) {
		s := open(t, 1, options{patience: 20 * time.Second}) // the chain shows it, however busy the machine is
		does(s.servers[0], func(c *remote.Call) remote.Reply {
			hash, _ := c.Send()
			return c.Refuse("settlement_pending", hash)
		})
		in := s.Claimed()
		s.WantSettled(in, s.Settle(in))
		if n := s.settled(0); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
	t.Run("asked again", func(t *testing.T) {
		s := open(t, 1, options{})
		does(s.servers[0], func(c *remote.Call) remote.Reply {
			if c.N == 1 {
				return c.Refuse("settlement_pending", common.Hash{2})
			}
			return c.Honest()
		})
		in := s.Claimed()
		s.WantSettled(in, s.Settle(in))
		if n := s.settled(0); n != 2 {
			t.Errorf("%d requests", n)
		}
	})
	t.Run("for ever", func(t *testing.T) {
		s := open(t, 1, options{})
		does(s.servers[0], func(c *remote.Call) remote.Reply { return c.Refuse("settlement_pending", common.Hash{2}) })
		in := s.Claimed()
		if out := s.SettleUntil(in, "it was asked again", s.asked(0, 2)); out.Status != settlement.Unknown {
			t.Errorf("got %+v", out)
		}
		if n := s.settled(0); n != 2 {
			t.Errorf("%d requests", n)
		}
	})
}

// A trusted facilitator's word counts: a success is not looked up, a refusal is one, and what got lost is asked for once more.
func TestTrust(t *testing.T) {
	trusting := options{settings: facilitator.Settings{Trust: true}}
	t.Run("success", func(t *testing.T) {
		s := open(t, 1, trusting)
		does(s.servers[0], func(c *remote.Call) remote.Reply { return c.Success(common.Hash{1}) })
		in := s.Claimed()
		if out := s.Settle(in); out.Status != settlement.Settled || out.Transaction != (common.Hash{1}) || out.Final {
			t.Errorf("got %+v", out)
		}
	})
	t.Run("refusal", func(t *testing.T) {
		s := open(t, 1, trusting)
		does(s.servers[0], func(c *remote.Call) remote.Reply { return c.Refuse("payer_is_sanctioned", common.Hash{}) })
		in := s.Claimed()
		s.WantFailed(s.Settle(in), "payer_is_sanctioned")
	})
	t.Run("answer lost", func(t *testing.T) {
		s := open(t, 1, trusting)
		does(s.servers[0], func(c *remote.Call) remote.Reply {
			if c.N == 1 {
				return remote.Reply{Drop: true}
			}
			return c.Success(common.Hash{3})
		})
		in := s.Claimed()
		if out := s.Settle(in); out.Status != settlement.Settled || out.Transaction != (common.Hash{3}) {
			t.Errorf("got %+v", out)
		}
		requests := s.servers[0].Requests("/settle")
		if len(requests) != 2 || !bytes.Equal(requests[0].Body, requests[1].Body) {
			t.Errorf("%d requests, or they differ", len(requests))
		}
	})
	t.Run("resolved by asking again", func(t *testing.T) {
		clock := newClock()
		s := open(t, 1, options{settings: facilitator.Settings{Trust: true}, now: clock.Now})
		does(s.servers[0], func(*remote.Call) remote.Reply { return remote.Reply{Drop: true} })
		in := s.Claimed()
		if out := s.SettleUntil(in, "it was asked again", s.asked(0, 2)); out.Status != settlement.Unknown {
			t.Fatalf("got %+v", out)
		}
		does(s.servers[0], func(c *remote.Call) remote.Reply { return c.Success(common.Hash{4}) })
		if out := s.Resolve(in); out.Status != settlement.Unknown || s.settled(0) != 2 {
			t.Errorf("it was asked again at once: %+v, %d requests", out, s.settled(0))
		}
		clock.Add(time.Minute)
		in.Signature, in.Exchange = nil, nil // as the reconciler has it
		if out := s.Resolve(in); out.Status != settlement.Settled || out.Transaction != (common.Hash{4}) || s.settled(0) != 3 {
			t.Errorf("got %+v, %d requests", out, s.settled(0))
		}
	})
}

// Where several facilitators are configured, the next one is asked only if the one before was not reached, or has refused what
// the chain would settle.
func TestFailOver(t *testing.T) {
	for _, tc := range []struct {
		name   string
		first  func(*remote.Call) remote.Reply
		second int
	}{
		{"refused", func(c *remote.Call) remote.Reply { return c.Refuse("unexpected_settle_error", common.Hash{}) }, 1},
		{"declined", status(http.StatusForbidden), 1},
		{"moved away", func(*remote.Call) remote.Reply {
			return remote.Reply{Status: http.StatusFound, Header: http.Header{"Location": {"/elsewhere"}}}
		}, 1},
		{"answer lost", func(*remote.Call) remote.Reply { return remote.Reply{Drop: true} }, 0},
		{"broken", status(http.StatusBadGateway), 0},
		{"garbage", status(http.StatusOK), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := open(t, 2, options{})
			does(s.servers[0], tc.first)
			in := s.Claimed()
			if tc.second > 0 {
				s.WantSettled(in, s.Settle(in))
				s.WantReceived(1)
				s.WantRecorded(in, 2)
			} else if out := s.SettleUntil(in, "the first one was asked", s.asked(0, 1)); out.Status != settlement.Unknown {
				t.Errorf("got %+v", out)
			}
			if n := s.settled(1); n != tc.second {
				t.Errorf("the second one got %d requests, want %d", n, tc.second)
			}
			if tc.second > 0 {
				return
			}
			// It stays with the first one, also for another process.
			s.Settler = s.Start()
			s.SettleUntil(in, "the first one was asked again", s.asked(0, 2))
			if s.settled(1) != 0 || s.settled(0) != 2 {
				t.Errorf("%d and %d requests", s.settled(0), s.settled(1))
			}
		})
	}
	t.Run("stays with the second", func(t *testing.T) {
		s := open(t, 2, options{})
		does(s.servers[0], func(c *remote.Call) remote.Reply { return c.Refuse("unexpected_settle_error", common.Hash{}) })
		does(s.servers[1], func(*remote.Call) remote.Reply { return remote.Reply{Drop: true} })
		in := s.Claimed()
		for i := 1; i <= 2; i++ {
			if out := s.SettleUntil(in, "the second one was asked", s.asked(1, i)); out.Status != settlement.Unknown {
				t.Errorf("got %+v", out)
			}
			if s.settled(0) != 1 || s.settled(1) != i {
				t.Errorf("%d and %d requests", s.settled(0), s.settled(1))
			}
		}
		// Who had it last is not there any more: it goes to nobody, and is only looked for.
		s.Must(s.Settler.(settler).Reconfigure(facilitator.Settings{Facilitators: []facilitator.Facilitator{{URL: s.servers[0].URL()}}}))
		if out := s.Settle(in); out.Status != settlement.Unknown || out.Err == nil || s.settled(0) != 1 {
			t.Errorf("got %+v, %d requests", out, s.settled(0))
		}
	})
	t.Run("not reached", func(t *testing.T) {
		s := open(t, 2, options{})
		s.servers[0].Stop()
		in := s.Claimed()
		s.WantSettled(in, s.Settle(in))
		s.WantReceived(1)
	})
}

// A facilitator that fails again and again is left alone, and tried again later, by one payment.
func TestBreaker(t *testing.T) {
	clock := newClock()
	s := open(t, 1, options{now: clock.Now})
	does(s.servers[0], status(http.StatusBadGateway))
	for i := range 3 {
		s.SettleUntil(s.Claimed(), "it was asked", s.asked(0, i+1))
	}
	if _, err := s.Settler.Check(s.Ctx(), s.Sign(s.Payer, nil)); !isUnavailable(err) {
		t.Errorf("a facilitator that fails is handed more payments: %v", err)
	}
	if err := s.Settler.Ready(s.Ctx()); !isUnavailable(err) {
		t.Errorf("ready: %v", err)
	}
	clock.Add(2 * time.Second)
	s.servers[0].Behave(nil)
	in := s.Claimed()
	s.WantSettled(in, s.Settle(in))
	s.Must(s.Settler.Ready(s.Ctx()))
}

// The payload goes through as the payer sent it, in every request; our own requirements come from us.
func TestByteForByte(t *testing.T) {
	s := open(t, 1, options{})
	in := s.Claimed()
	in.Exchange = exchange(in)
	s.WantSettled(in, s.Settle(in))
	var body struct {
		Version      int             `json:"x402Version"`
		Payload      json.RawMessage `json:"paymentPayload"`
		Requirements json.RawMessage `json:"paymentRequirements"`
	}
	s.Must(json.Unmarshal(s.servers[0].Requests("/settle")[0].Body, &body))
	if body.Version != 2 || !bytes.Equal(body.Payload, in.Exchange.Payload) {
		t.Errorf("version %d, payload\n%s\nwant\n%s", body.Version, body.Payload, in.Exchange.Payload)
	}
	want, err := json.Marshal(in.Exchange.Requirements)
	s.Must(err)
	if !bytes.Equal(body.Requirements, want) {
		t.Errorf("requirements\n%s\nwant\n%s", body.Requirements, want)
	}
}

// A facilitator that speaks the other version only gets the same authorization in an envelope of that version.
func TestOtherVersion(t *testing.T) {
	for _, version := range []int{1, 2} {
		s := open(t, 1, options{})
		s.servers[0].Speak(version)
		s.Settler = s.Start() // which asks what it supports
		in := s.Claimed()
		in.Exchange = exchange(in)
		if version == 2 {
			in.Exchange.Version, in.Exchange.Payload = 1, []byte(`{"x402Version":1,"scheme":"exact","network":"base-sepolia","payload":{}}`)
		}
		s.WantSettled(in, s.Settle(in))
		var body struct {
			Version      int                        `json:"x402Version"`
			Payload      map[string]json.RawMessage `json:"paymentPayload"`
			Requirements map[string]json.RawMessage `json:"paymentRequirements"`
		}
		s.Must(json.Unmarshal(s.servers[0].Requests("/settle")[0].Body, &body))
		amount := map[int]string{1: "maxAmountRequired", 2: "amount"}[version]
		if body.Version != version || string(body.Requirements[amount]) != `"12345"` {
			t.Errorf("version %d: %d %s", version, body.Version, body.Requirements)
		}
	}
}
