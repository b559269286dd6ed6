package crash

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddy-x402/caddy-x402/devnet"
	"github.com/caddy-x402/caddy-x402/test/facilitator"
	"github.com/caddy-x402/caddy-x402/test/rig"
	"github.com/caddy-x402/caddy-x402/x402"
)

// Where a facilitator settles: wherever the process is killed, a payment that was handed over is made and served once, and
// one that was only noted goes on when its payer comes back, or has ended with its authorization before anything new is
// charged.
func TestKilledBesideAFacilitator(t *testing.T) {
	for _, step := range []string{"claimed", "signed", "recorded", "handed", "settled", "delivering"} {
		for _, anew := range []bool{false, true} {
			name := step + "/sends the same again"
			if anew {
				name = step + "/signs anew"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				facilitated(t, step, anew)
			})
		}
	}
}

func facilitated(t *testing.T, step string, anew bool) {
	chain := newChain(t)
	f := facilitator.New(t, chain.URL(), devnet.Developer(3).Key)
	s := newScene(t, chain, http.MethodGet, "/thing")
	o := rig.Options{Settler: "facilitator " + f.URL(), App: "settle_timeout 20s\n hold_ttl 2s\n min_age 6s\n interval 200ms"}
	s.dies(o, step, 0)
	asked := len(f.Requests("/settle"))

	alive := s.start(o, "")
	act := clients["sends the same again"]
	if anew {
		act = func(s *scene) rig.Answer { return s.send(s.buyer.Sign(s.offer, 0, muchLater)) }
		if step == "recorded" { // nobody has it, but only its payer and time can tell
			if a := act(s); a.Status != http.StatusServiceUnavailable || asked != 0 {
				t.Errorf("%d %s", a.Status, a.Body)
			}
			if err := chain.AdvanceTime(5 * time.Minute); err != nil {
				t.Fatal(err)
			}
		}
	}
	answer := s.insist(act)
	s.settle()
	alive.Kill()
	s.judge(step, answer)
	if n := len(f.Requests("/settle")); n != 1 {
		t.Errorf("%d requests to settle for one payment", n)
	}
}

// muchLater makes an authorization outlast what the chain's time is moved by.
func muchLater(a *x402.Authorization) {
	a.ValidBefore.SetUint64(uint64(time.Now().Add(50 * time.Minute).Unix()))
}
