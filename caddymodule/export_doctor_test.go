package caddymodule

import (
	"bytes"
	"testing"

	"github.com/spf13/cobra"
)

// RunDoctor runs "caddy x402 doctor" in this process, for tests that need the modules which stand on this package.
func RunDoctor(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	root := &cobra.Command{Use: "x402"}
	root.AddCommand(newDoctorCommand(payIO{}))
	var o, e bytes.Buffer
	root.SetOut(&o)
	root.SetErr(&e)
	root.SetArgs(append([]string{"doctor"}, args...))
	code = exitCodeIn(t, root.ExecuteContext(t.Context()))
	return code, o.String(), e.String()
}
