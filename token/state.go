package token

import "time"

// KeyState says what a key of a ring is for at a moment.
type KeyState string

// A key goes through these in this order.
const (
	// KeyNext is published and verifies, and does not sign yet.
	KeyNext KeyState = "next"
	// KeySigning signs.
	KeySigning KeyState = "signing"
	// KeyVerifying signs no more; what it has signed is still good.
	KeyVerifying KeyState = "verifying"
	// KeyEnded is out of use.
	KeyEnded KeyState = "ended"
)

// KeyInfo is what may be told of a key.
type KeyInfo struct {
	ID        string   `json:"id"`
	Algorithm string   `json:"algorithm"`
	State     KeyState `json:"state"`
	// CreatedAt is when it was made; zero where that is not known.
	CreatedAt time.Time `json:"created_at,omitzero"`
	// SignsFrom and VerifiesUntil are its turn; zero: at once, and without an end.
	SignsFrom     time.Time `json:"signs_from,omitzero"`
	VerifiesUntil time.Time `json:"verifies_until,omitzero"`
	// LongestToken is the life of the longest token that it signs, in seconds; 0 where that is not known.
	LongestToken int64 `json:"longest_token_seconds,omitempty"`
}

// Info is what may be told of the keys at now, in the order of Keys.
func (r *Keyring) Info(now time.Time) []KeyInfo {
	s := r.keys.Load()
	at := s.signing(now)
	out := make([]KeyInfo, len(s.keys))
	for i, k := range s.keys {
		out[i] = KeyInfo{
			ID: k.id, Algorithm: k.Algorithm(), State: KeyVerifying, CreatedAt: k.created, SignsFrom: k.from, VerifiesUntil: k.until,
			LongestToken: int64(k.longest / time.Second),
		}
		switch {
		case i == at:
			out[i].State = KeySigning
		case k.expired(now):
			out[i].State = KeyEnded
		case k.sign != nil && k.from.After(now):
			out[i].State = KeyNext
		}
	}
	return out
}
