package doctor

import (
	"context"
	"math"
	"strings"
)

func secretItems() []Item {
	return []Item{
		{
			ID: "config.sound", Title: "Caddy takes the configuration, and all that it needs is set",
			Why: "A configuration that is refused leaves the site as it was, or, at a start, without a site.",
			Do:  "Mend what is said, and try `caddy validate` with the environment that Caddy will have.",
			look: func(_ context.Context, s *Subject) Verdict {
				if s.Refused != "" {
					return bad("%s", s.Refused)
				}
				return good("it validates")
			},
		},
		{
			ID: "secrets.literal", Title: "No secret stands in the configuration",
			Why:  "A configuration is copied, shown by the admin endpoint, saved by Caddy and kept in git: whoever sees it has the money.",
			Do:   "Keep secrets in a secret manager and write placeholders: {file./run/secrets/name} or {env.NAME}. Replace those that stood there: they are known.",
			look: lookLiterals,
		},
		{
			ID: "secrets.set", Title: "Every secret can be read, by Caddy alone",
			Why:  "A secret that is missing stops payments; a file that everybody on the machine may read is no secret.",
			Do:   "Set what is missing; `chmod 600` the files of secrets, and give them to Caddy's user.",
			look: lookReadable,
		},
		{
			ID: "secrets.strong", Title: "Secrets can't be guessed, and none is used twice",
			Why:  "Who guesses the key of tokens makes tokens for nothing; a secret for two things is lost with either.",
			Do:   "Make each with `openssl rand -base64 32`, and every wallet's key with a wallet.",
			look: lookStrong,
		},
		{
			ID: "secrets.logs", Title: "Logs that hold requests keep payments and tokens out of them",
			Why: "A payment header can be used by who reads it until it is settled, and a token as long as it is good.",
			Do:  "Write `format x402_redact` into the global `log` and into that of each site.",
			look: func(_ context.Context, s *Subject) Verdict {
				var found []string
				for _, l := range s.Logs {
					if !l.Redacted {
						found = append(found, "the log "+l.Name+" has another format")
					}
				}
				if len(found) > 0 {
					return bad("%s", join(found))
				}
				return good("logs that may hold requests: %d, all redacted", len(s.Logs))
			},
		},
	}
}

func lookLiterals(_ context.Context, s *Subject) Verdict {
	if len(s.Literals) > 0 {
		return bad("a secret stands at: %s", strings.Join(s.Literals, ", "))
	}
	return good("secrets by placeholder: %d", len(s.Secrets))
}

func lookReadable(_ context.Context, s *Subject) Verdict {
	var found []string
	for _, x := range s.Secrets {
		switch {
		case x.Problem != "":
			found = append(found, x.Name+": "+x.Problem)
		case x.Exposed != "":
			found = append(found, x.Name+": "+x.Exposed)
		}
	}
	if len(found) > 0 {
		return bad("%s", join(found))
	}
	return good("all %d", len(s.Secrets))
}

func lookStrong(_ context.Context, s *Subject) Verdict {
	var found []string
	seen := map[string]Secret{}
	for _, x := range s.Secrets {
		if x.Weak != "" {
			found = append(found, x.Name+" "+x.Weak)
		}
		first, again := seen[x.Print]
		if again && x.Print != "" && first.Name != x.Name && first.Placeholder != x.Placeholder {
			found = append(found, x.Name+" is the same as "+first.Name)
		}
		if !again {
			seen[x.Print] = x
		}
	}
	if len(found) > 0 {
		return bad("%s", join(found))
	}
	return good("none is weak, and none is there twice")
}

// leastSecret is how long a secret must be at least, in bytes, and leastBits how much there must be to guess.
const (
	leastSecret = 32
	leastBits   = 96
)

// Weakness says why somebody could guess a secret; empty: nobody can. What is estimated is how much its characters differ, which finds what
// was typed, not what was badly made. The secret is not kept.
func Weakness(secret string) string {
	if len(secret) < leastSecret {
		return "is shorter than 32 characters"
	}
	counts := map[byte]int{}
	for i := range len(secret) {
		counts[secret[i]]++
	}
	bits := 0.0
	for _, n := range counts {
		p := float64(n) / float64(len(secret))
		bits -= p * math.Log2(p)
	}
	if bits*float64(len(secret)) < leastBits {
		return "repeats itself too much to be random"
	}
	low := strings.ToLower(secret)
	for _, word := range [...]string{"changeme", "change-me", "password", "example", "secretsecret", "your-", "0123456789abcdef0123456789abcdef"} {
		if strings.Contains(low, word) {
			return "looks like one out of an example"
		}
	}
	return ""
}
