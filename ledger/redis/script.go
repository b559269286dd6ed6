package redis

import (
	"crypto/sha1" //nolint:gosec // Redis names scripts so
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

//go:embed lua
var luaFiles embed.FS

// script is one step that Redis makes as a whole.
type script struct{ name, source, sha string }

// scripts by their file's name. Each begins with prelude.lua.
var scripts = func() map[string]*script {
	got := map[string]*script{}
	files, _ := fs.Glob(luaFiles, "lua/*.lua") // the pattern is good
	prelude, _ := luaFiles.ReadFile("lua/prelude.lua")
	for _, file := range files {
		source, err := luaFiles.ReadFile(file)
		name := strings.TrimSuffix(path.Base(file), ".lua")
		if err != nil || name == "prelude" {
			continue
		}
		all := string(prelude) + string(source)
		sum := sha1.Sum([]byte(all)) //nolint:gosec // as above
		got[name] = &script{name: name, source: all, sha: hex.EncodeToString(sum[:])}
	}
	return got
}()

// call is one run of a script.
type call struct {
	script *script
	keys   []string
	args   []any
	write  bool
	// decides: what it shows must be confirmed, in case the server has something that is not. prove: in any case.
	decides, prove bool

	whole bool   // the script goes along: the server does not know it
	sent  bool   // it may have reached a server
	ask   string // the server that a slot is just moving to
	reply []any
	err   error
	done  bool
}

// deciding are the scripts that read what somebody will act upon, and not only show.
var deciding = map[string]bool{
	"get": true, "read": true, "list": true, "fields": true, "revoked": true, "objects": true, "dueobjects": true,
}

func reading(name string, keys []string, args ...any) *call {
	return &call{script: scripts[name], keys: keys, args: args, decides: deciding[name]}
}

func writing(name string, keys []string, args ...any) *call {
	return &call{script: scripts[name], keys: keys, args: args, write: true}
}

// what is the first word of the script's answer.
func (c *call) what() string { return c.text(0) }

func (c *call) text(i int) string {
	if i >= len(c.reply) {
		return ""
	}
	s, _ := c.reply[i].(string)
	return s
}

// number is a number in the script's answer.
func (c *call) number(i int) int64 {
	if i >= len(c.reply) {
		return 0
	}
	n, _ := c.reply[i].(int64)
	return n
}

// texts is a list in the script's answer.
func (c *call) texts(i int) []string {
	if i >= len(c.reply) {
		return nil
	}
	list, _ := c.reply[i].([]any)
	got := make([]string, 0, len(list))
	for _, v := range list {
		s, _ := v.(string)
		got = append(got, s)
	}
	return got
}

// args of the script, with the time before them.
func (c *call) arguments(now string, server string) []any {
	return append([]any{now, server}, c.args...)
}

func (c *call) unexpected() error {
	return fmt.Errorf("ledger/redis: the script %s answered %q", c.script.name, c.what())
}
