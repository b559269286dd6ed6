package paywall

import (
	"encoding/hex"
	"net/http"
	"strings"
	"time"
)

// cookieName is the cookie of the plans of a set of routes. Browsers take the prefix for a promise that the cookie came from this
// very host, over TLS, and goes to no other.
func cookieName(scope string) string {
	sum := digest("cookie", scope)
	return "__Host-x402-" + hex.EncodeToString(sum[:4])
}

// accessTokenOf gives the access token that a request may carry: as a bearer token, or else in our cookie, which the upstream does
// not get.
func (g *Gate) accessTokenOf(r *http.Request, q Request) (token string, inCookie bool) {
	bearer := bearerToken(r.Header)
	if !g.Cookie || len(r.Header["Cookie"]) == 0 {
		return bearer, false
	}
	value := takeCookie(r.Header, cookieName(q.Route.Scope))
	if bearer == "" && value != "" {
		return value, true
	}
	return bearer, false
}

// Clean is CleanRequest for what passes without this gate, though it is of the same set of routes: the upstream does not get our cookie.
func (g *Gate) Clean(r *http.Request, scope string) {
	CleanRequest(r)
	g.takeKey(r.Header)
	if g.Cookie && len(r.Header["Cookie"]) > 0 {
		takeCookie(r.Header, cookieName(scope))
	}
}

// takeCookie removes a cookie from a request and gives its value. The others stay as they are.
func takeCookie(h http.Header, name string) (value string) {
	var lines []string
	for _, line := range h["Cookie"] {
		var kept []string
		for pair := range strings.SplitSeq(line, ";") {
			key, v, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if key != name {
				kept = append(kept, strings.TrimSpace(pair))
			} else if value == "" {
				value = strings.Trim(v, `"`)
			}
		}
		if line = strings.Join(kept, "; "); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		delete(h, "Cookie")
	} else {
		h["Cookie"] = lines
	}
	return value
}

// addCookie gives a browser its token, where no script can read it. Pages of other sites can have it sent by links, not by forms.
func (a *attempt) addCookie(h http.Header, token string, until time.Time) {
	if !a.Cookie {
		return
	}
	c := http.Cookie{
		Name: cookieName(a.Route.Scope), Value: token, Path: "/", Expires: until.UTC(), Secure: true, HttpOnly: true,
		SameSite: http.SameSiteLaxMode,
	}
	h.Add("Set-Cookie", c.String())
}
