package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestConfig(t *testing.T) {
	t.Chdir(t.TempDir())
	tests := map[string]struct {
		env  map[string]string
		want string // a part of the error
	}{
		"payers":        {env: map[string]string{"BENCH_PAYERS": "1,x"}, want: "BENCH_PAYERS"},
		"no payers":     {env: map[string]string{"BENCH_PAYERS": "0"}, want: "BENCH_PAYERS"},
		"seconds":       {env: map[string]string{"BENCH_SECONDS": "1.5"}, want: "BENCH_SECONDS"},
		"runs":          {env: map[string]string{"BENCH_RUNS": "-1"}, want: "BENCH_RUNS"},
		"blocks":        {env: map[string]string{"BENCH_BLOCKS": "0,1500ms"}, want: "BENCH_BLOCKS"},
		"parts":         {env: map[string]string{"BENCH_ONLY": "hot,cold"}, want: "BENCH_ONLY"},
		"another place": {want: "test/bench/peer"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := configFrom(func(s string) string { return tc.env[s] }); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the error is %v, want one about %s", err, tc.want)
			}
		})
	}
	c, _ := configFrom(func(s string) string {
		return map[string]string{"BENCH_PAYERS": "1, 8", "BENCH_BLOCKS": "0,2s", "BENCH_SECONDS": "5"}[s]
	})
	if !slices.Equal(c.payers, []int{1, 8}) || !slices.Equal(c.blocks, []time.Duration{0, 2 * time.Second}) {
		t.Errorf("payers %v, blocks %v", c.payers, c.blocks)
	}
	if c.window(0) != 5*time.Second || c.window(2*time.Second) != 8*time.Second {
		t.Errorf("a cell is measured for %s and %s", c.window(0), c.window(2*time.Second))
	}
}
