package rig

import (
	"runtime"
	"strings"
	"time"
)

// rooms are the packages that ship; their goroutines end with the configuration that started them.
var rooms = []string{"/caddymodule.", "/caddymodule/", "/paywall.", "/management.", "/management/", "/settlement/", "/ledger/", "/token."}

// leftovers gives the stacks of goroutines that run code of ours, after some time to end by themselves.
func leftovers() string {
	const ours = "github.com/caddy-x402/caddy-x402"
	var left []string
	for range 600 {
		left = nil
		buf := make([]byte, 8<<20)
		for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			for _, room := range rooms {
				if strings.Contains(stack, ours+room) && !strings.Contains(stack, ours+"/test/") {
					left = append(left, stack)
					break
				}
			}
		}
		if len(left) == 0 {
			return ""
		}
		time.Sleep(50 * time.Millisecond)
	}
	return strings.Join(left, "\n\n")
}
