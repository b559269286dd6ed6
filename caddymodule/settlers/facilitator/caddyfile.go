package facilitator

import (
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// UnmarshalCaddyfile reads
//
//	facilitator <url...>|cdp [<url>] {
//		bearer     <token>
//		header     <name> <value>              # repeatable
//		key_id     <id>                        # of cdp
//		key_secret <secret>
//		timeout    <duration>
//		verify
//		trust_facilitator
//		then       <url>|cdp [<url>] { ... }   # repeatable: who is asked next, with what else stands above
//	}
//
// Several addresses on one line can't have credentials, which would go to all of them.
func (f *Facilitator) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the module's name
	first, err := remotes(d)
	if err != nil {
		return err
	}
	f.Facilitators = first
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch d.Val() {
		case "trust_facilitator":
			if f.Trust {
				return d.Err("trust_facilitator is there twice in facilitator")
			}
			if d.NextArg() {
				return d.ArgErr()
			}
			f.Trust = true
		case "then":
			next, err := remotes(d)
			if err != nil {
				return err
			}
			if len(next) > 1 {
				return d.ArgErr()
			}
			if err := next[0].block(d); err != nil {
				return err
			}
			f.Facilitators = append(f.Facilitators, next...)
		default:
			if len(first) > 1 && d.Val() != "timeout" && d.Val() != "verify" {
				return d.Errf("%s would hold for several facilitators; write each of them with `then` and a block of its own", d.Val())
			}
			if err := first[0].subdirective(d, true); err != nil {
				return err
			}
			for _, other := range first[1:] {
				other.Timeout, other.Verify = first[0].Timeout, first[0].Verify
			}
		}
	}
	return nil
}

// remotes reads addresses, or cdp.
func remotes(d *caddyfile.Dispenser) ([]*Remote, error) {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return nil, d.ArgErr()
	}
	if args[0] == "cdp" {
		if len(args) > 2 {
			return nil, d.ArgErr()
		}
		r := &Remote{CDP: new(CDP)}
		if len(args) == 2 {
			r.URL = args[1]
		}
		return []*Remote{r}, nil
	}
	list := make([]*Remote, 0, len(args))
	for _, url := range args {
		list = append(list, &Remote{URL: url})
	}
	return list, nil
}

func (r *Remote) block(d *caddyfile.Dispenser) error {
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := r.subdirective(d, false); err != nil {
			return err
		}
	}
	return nil
}

// subdirective reads one line about r. outer: it is in the block that has trust_facilitator and then as well.
func (r *Remote) subdirective(d *caddyfile.Dispenser, outer bool) error {
	name := d.Val()
	switch name {
	case "bearer":
		return word(d, &r.Bearer)
	case "header":
		return r.header(d)
	case "key_id", "key_secret":
		if r.CDP == nil {
			return d.Errf("%s is for `facilitator cdp`", name)
		}
		if name == "key_id" {
			return word(d, &r.CDP.KeyID)
		}
		return word(d, &r.CDP.KeySecret)
	case "timeout":
		return r.timeout(d)
	case "verify":
		if r.Verify {
			return d.Err("verify is there twice in facilitator")
		}
		if d.NextArg() {
			return d.ArgErr()
		}
		r.Verify = true
		return nil
	}
	known := "bearer, header, key_id, key_secret, timeout and verify"
	if outer {
		known = "bearer, header, key_id, key_secret, then, timeout, trust_facilitator and verify"
	}
	return d.Errf("unrecognized subdirective '%s' of facilitator; it knows %s", name, known)
}

// word reads the only argument of a subdirective, which may be there once.
func word(d *caddyfile.Dispenser, into *string) error {
	name := d.Val()
	if *into != "" {
		return d.Errf("%s is there twice in facilitator", name)
	}
	if !d.Args(into) || d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

func (r *Remote) header(d *caddyfile.Dispenser) error {
	var name, value string
	if !d.Args(&name, &value) || d.NextArg() {
		return d.ArgErr()
	}
	if _, twice := r.Headers[name]; twice {
		return d.Errf("header %s is there twice in facilitator", name)
	}
	if r.Headers == nil {
		r.Headers = make(map[string]string)
	}
	r.Headers[name] = value
	return nil
}

func (r *Remote) timeout(d *caddyfile.Dispenser) error {
	if r.Timeout != 0 {
		return d.Err("timeout is there twice in facilitator")
	}
	var s string
	if !d.Args(&s) || d.NextArg() {
		return d.ArgErr()
	}
	v, err := caddy.ParseDuration(s)
	if err != nil || v < time.Millisecond {
		return d.Errf("'%s' is not a duration; write one such as 30s", s)
	}
	r.Timeout = caddy.Duration(v)
	return nil
}

// Interface guard.
var _ caddyfile.Unmarshaler = (*Facilitator)(nil)
