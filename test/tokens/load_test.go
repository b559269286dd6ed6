package tokens

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/test/rig"
)

// pass is a token that somebody bought.
type pass struct {
	token, kid string
	asked, at  time.Time // when it was asked for, and had
}

// kidOf reads the id of the key that signed a token.
func kidOf(token string) string {
	head, _, _ := strings.Cut(token, ".")
	text, _ := base64.RawURLEncoding.DecodeString(head)
	var h struct {
		Kid string `json:"kid"`
	}
	_ = json.Unmarshal(text, &h)
	return h.Kid
}

// shot is an answer to a token.
type shot struct {
	kid        string
	member     int
	sent, done time.Time
	status     int
	err        error
	body       string
}

// load is buyers that use what they have bought on every instance, buy more, and look at the keys that are shown.
type load struct {
	f    *fleet
	stop chan struct{}
	all  sync.WaitGroup

	mu     sync.Mutex
	passes []pass
	shots  []shot
	shown  map[string][]time.Time // by key: when each instance showed it first
	failed []string
}

func newLoad(f *fleet, passes ...pass) *load {
	l := &load{f: f, stop: make(chan struct{}), passes: passes, shown: map[string][]time.Time{}}
	for i := range f.members {
		for range 2 {
			l.all.Go(func() { l.use(i) })
		}
	}
	l.all.Go(l.buyMore)
	l.all.Go(l.watch)
	return l
}

// end stops it, and gives what was seen.
func (l *load) end() {
	close(l.stop)
	l.all.Wait()
}

// pause waits; false says that it is over.
func (l *load) pause(d time.Duration) bool {
	select {
	case <-l.stop:
		return false
	case <-time.After(d):
		return true
	}
}

func (l *load) use(member int) {
	b := rig.NewBuyer(l.f.t, 0)
	for l.pause(3 * time.Millisecond) {
		l.mu.Lock()
		p := l.passes[rand.IntN(len(l.passes))]
		l.mu.Unlock()
		s := shot{kid: p.kid, member: member, sent: time.Now()}
		a := l.f.members[member].ask(b, "/plans/x", bearer(p.token)...)
		s.done, s.status, s.err = time.Now(), a.Status, a.Err
		if a.Status != http.StatusOK {
			s.body = a.Body
		}
		l.mu.Lock()
		l.shots = append(l.shots, s)
		l.mu.Unlock()
	}
}

// buyMore buys a plan every half a second, each for another payer, at one instance after the other.
func (l *load) buyMore() {
	for i := 0; l.pause(500 * time.Millisecond); i++ {
		asked := time.Now()
		token, _, err := l.f.buy(l.f.members[i%len(l.f.members)], rig.NewBuyer(l.f.t, 10+i))
		l.mu.Lock()
		if err != nil {
			l.failed = append(l.failed, err.Error())
		} else {
			l.passes = append(l.passes, pass{token, kidOf(token), asked, time.Now()})
		}
		l.mu.Unlock()
	}
}

// enough says whether there was so much that something can be said: tokens of the new key, and uses of the old one's after its end.
func (l *load) enough(old, next keyInfo) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	ofNew, late := 0, 0
	for _, p := range l.passes {
		if p.kid == next.ID {
			ofNew++
		}
	}
	for _, s := range l.shots {
		if s.kid == old.ID && !s.sent.Before(old.VerifiesUntil) {
			late++
		}
	}
	return ofNew >= 5 && late >= 20 && len(l.shots) >= 1000
}

// watch looks at the keys that each instance shows.
func (l *load) watch() {
	b := rig.NewBuyer(l.f.t, 0)
	for l.pause(50 * time.Millisecond) {
		for i, m := range l.f.members {
			a := m.ask(b, "/.well-known/jwks.json")
			var set struct {
				Keys []struct{ Kid, D string }
			}
			if err := json.Unmarshal([]byte(a.Body), &set); err != nil {
				l.fail("the keys of instance %d: %d %v %s", i, a.Status, a.Err, a.Body)
				continue
			}
			for _, k := range set.Keys {
				if k.D != "" {
					l.fail("instance %d shows a private key", i)
				}
				l.saw(k.Kid, i)
			}
		}
	}
}

func (l *load) fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, fmt.Sprintf(format, args...))
}

func (l *load) saw(kid string, member int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shown[kid] == nil {
		l.shown[kid] = make([]time.Time, len(l.f.members))
	}
	if l.shown[kid][member].IsZero() {
		l.shown[kid][member] = time.Now()
	}
}
