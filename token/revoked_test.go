package token

import (
	"testing"
	"time"
)

// All who share the revocations refuse what one has heard of, and what was remembered as good is looked at again only when
// something was revoked.
func TestRevocationsAreShared(t *testing.T) {
	ring, r := ringOf(t, edKey(t)), NewRevoked()
	tok := issue(t, ring, Access, sale(), time.Hour)
	var vs []*Verifier
	for range 3 {
		v := verifier(t, ring, Access, 0)
		v.Heed(r)
		wantOK(t, v, tok, start)
		vs = append(vs, v)
	}
	r.Add("pay_2", start.Add(time.Hour), start)
	for _, v := range vs {
		wantOK(t, v, tok, start)
	}
	r.Add("pay_1", start.Add(time.Hour), start)
	for _, v := range vs {
		wantErr(t, v, tok, start, ErrRevoked)
		wantErr(t, v, tok, start.Add(time.Hour), ErrRevoked) // as long as leeway lets it live
	}
}

func TestSilence(t *testing.T) {
	r := NewRevoked()
	if _, heard := r.Silence(time.Now()); heard {
		t.Error("nobody has listened, and something was heard")
	}
	at := time.Now()
	r.Heard(at)
	if d, heard := r.Silence(at.Add(3 * time.Second)); !heard || d != 3*time.Second {
		t.Errorf("silent for %v, %v", d, heard)
	}
	// The wall's clock is turned back by an hour: the other one goes on.
	if d, _ := r.Silence(at.Add(3 * time.Second)); d < 3*time.Second {
		t.Errorf("silent for %v", d)
	}
	// The machine has slept for an hour, in which the other one stood still: the wall's tells.
	if d, _ := r.Silence(at.Round(0).Add(time.Hour)); d != time.Hour {
		t.Errorf("silent for %v after an hour of sleep", d)
	}
}
