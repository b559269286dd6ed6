package facilitator

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/caddy-x402/caddy-x402/x402"
)

// remote is one facilitator and what is known of it.
type remote struct {
	base string // without a slash at its end
	host string // what it is called in logs and errors
	// id names it in the journal, over restarts, without telling its address, which may hold a key.
	id   string
	http *http.Client

	breaker   breaker
	supported supported

	mu   sync.RWMutex
	conf Facilitator
}

var errAddress = errors.New("facilitator: an address must be http://… or https://…, without name, password, query and fragment")

func newRemote(f Facilitator, n x402.Network, client *http.Client) (*remote, error) {
	u, err := url.Parse(f.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" ||
		u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return nil, errAddress // not the address itself: it may hold a key
	}
	base := strings.TrimRight(u.String(), "/")
	sum := sha256.Sum256([]byte(base))
	r := &remote{base: base, host: u.Host, id: hex.EncodeToString(sum[:8]), http: client}
	r.supported.init(n)
	r.configure(f)
	return r, nil
}

// defaultTimeout is what facilitators take at most that are well; the chain tells what became of the others' payments.
const defaultTimeout = 30 * time.Second

func (r *remote) configure(f Facilitator) {
	if f.Timeout <= 0 {
		f.Timeout = defaultTimeout
	}
	f.Header = f.Header.Clone()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conf = f
}

func (r *remote) set() Facilitator {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.conf
}

// firstAnswer is how long a payment waits for the first answer to /supported.
const firstAnswer = 5 * time.Second

var errFailing = errors.New("it fails; it is left alone for a while")

// usable answers nil if a payment may be handed to r.
func (r *remote) usable(ctx context.Context, now func() time.Time) error {
	if err := r.supported.wait(ctx, firstAnswer); err != nil {
		return err
	}
	if err := r.supported.fits(); err != nil {
		return err
	}
	if !r.breaker.closed(now()) {
		return errFailing
	}
	return nil
}

// clean makes text that r sent fit for logs: printable, short, and without what we sent to it in confidence.
func (r *remote) clean(text string, secrets ...string) string {
	for _, values := range r.set().Header {
		secrets = append(secrets, values...)
	}
	return printable(text, secrets)
}

// maxText bounds the text of others that gets into our errors and logs.
const maxText = 200

// leastSecret is how long something must be to be taken out of texts: less would take out words.
const leastSecret = 6

// longRuns may be keys, signatures and payloads: whatever somebody repeats to us has no place in a log.
var longRuns = regexp.MustCompile(`[0-9A-Za-z+/=-]{20,}`)

func printable(text string, secrets []string) string {
	for _, s := range secrets {
		for _, part := range append(strings.Fields(s), s) { // "Bearer x" as well as "x"
			if len(part) >= leastSecret && !strings.EqualFold(part, "bearer") {
				text = strings.ReplaceAll(text, part, "…")
			}
		}
	}
	text = longRuns.ReplaceAllString(text, "…")
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}

// breaker leaves a facilitator alone that fails again and again.
type breaker struct {
	mu       sync.Mutex
	failures int // in a row
	until    time.Time
}

const (
	// mostFailures in a row are bad luck.
	mostFailures = 3
	firstBackoff = time.Second
	lastBackoff  = time.Minute
)

// closed reports whether r may be asked, without asking for it.
func (b *breaker) closed(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures < mostFailures || !now.Before(b.until)
}

// admit reports whether the caller may ask now. Of those who come after a time of failures, one tries; the others are held
// off for as long as that may take.
func (b *breaker) admit(now time.Time, trial time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < mostFailures {
		return true
	}
	if now.Before(b.until) {
		return false
	}
	b.until = now.Add(trial)
	return true
}

func (b *breaker) worked() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures, b.until = 0, time.Time{}
}

// failed notes a failure, and tells for how long the facilitator is left alone; 0: it is not.
func (b *breaker) failed(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures++
	over := b.failures - mostFailures
	if over < 0 {
		return 0
	}
	d := lastBackoff
	if over < 6 {
		d = firstBackoff << over
	}
	b.until = now.Add(d)
	return d
}
