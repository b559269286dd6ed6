package caddymodule

import (
	"encoding/json"
	"strconv"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// parseIssuer reads
//
//	issuer <url> {
//		auth    bearer <secret>
//		auth    header <name> <secret>
//		auth    jwt [<audience>]
//		auth    oauth2 <token_url> <client_id> <client_secret> {
//			scopes   <scopes...>
//			audience <audience>
//		}
//		timeout <duration>
//		retries <number>
//		field   <name> <value>
//	}
func parseIssuer(d *caddyfile.Dispenser) (*Issuer, error) {
	i := new(Issuer)
	if !d.Args(&i.URL) || d.NextArg() {
		return nil, d.Err("an issuer needs the address of its endpoint, such as `issuer https://backend.example.com/issue`")
	}
	return i, subdirectives(d, "issuer", map[string]func() error{
		"auth":    parseAuth(d, &i.Auth),
		"timeout": duration(d, &i.Timeout),
		"retries": func() error {
			var s string
			if err := one(d, &s)(); err != nil {
				return err
			}
			n, err := strconv.Atoi(s)
			if err != nil || n < 0 {
				return d.Errf("retries '%s' is not a number, such as 2", s)
			}
			i.Retries = &n
			return nil
		},
		"field": func() error {
			var name, value string
			if !d.Args(&name, &value) || d.NextArg() {
				return d.Err("a field needs a name and a value, such as `field product weather`")
			}
			if _, twice := i.Fields[name]; twice {
				return d.Errf("the field %s is there twice", name)
			}
			if i.Fields == nil {
				i.Fields = make(map[string]json.RawMessage)
			}
			i.Fields[name] = caddyconfig.JSON(value, nil)
			return nil
		},
	}, "field")
}

const authUsage = "write `auth bearer {env.SECRET}`, `auth header X-Secret {env.SECRET}`, `auth jwt` or " +
	"`auth oauth2 <token_url> <client_id> {env.CLIENT_SECRET}`"

func parseAuth(d *caddyfile.Dispenser, into **EndpointAuth) func() error {
	return func() error {
		args := d.RemainingArgs()
		a := new(EndpointAuth)
		*into = a
		if len(args) > 0 {
			a.Type = args[0]
		}
		switch n := len(args); {
		case a.Type == "bearer" && n == 2:
			a.Secret = args[1]
		case a.Type == "header" && n == 3:
			a.Header, a.Secret = args[1], args[2]
		case a.Type == "jwt" && n == 1:
		case a.Type == "jwt" && n == 2:
			a.Audience = args[1]
		case a.Type == "oauth2" && n == 4:
			a.TokenURL, a.ClientID, a.ClientSecret = args[1], args[2], args[3]
			return subdirectives(d, "auth oauth2", map[string]func() error{
				"audience": one(d, &a.Audience),
				"scopes":   several(d, &a.Scopes),
			})
		default:
			return d.Err(authUsage)
		}
		return nil
	}
}
