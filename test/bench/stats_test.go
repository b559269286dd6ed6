package main

import (
	"maps"
	"slices"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, tc := range []struct {
		of   []time.Duration
		p    int
		want time.Duration
	}{
		{nil, 50, 0},
		{[]time.Duration{7}, 1, 7},
		{[]time.Duration{7}, 99, 7},
		{[]time.Duration{1, 2}, 50, 1},
		{[]time.Duration{1, 2, 3}, 50, 2},
		{hundred, 50, 50},
		{hundred, 95, 95},
		{hundred, 99, 99},
		{hundred[:10], 99, 10},
	} {
		if got := percentile(tc.of, tc.p); got != tc.want {
			t.Errorf("p%d of %d values is %d, want %d", tc.p, len(tc.of), got, tc.want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, tc := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}} {
		if got := median(slices.Clone(tc.of)); got != tc.want {
			t.Errorf("the median of %v is %v", tc.of, got)
		}
	}
}

func TestNumber(t *testing.T) {
	for want, got := range map[string]string{
		"-": number(0, 1), "1.5": number(1.5, 1), "999": number(999, 0), "1,000": number(1000, 0), "12,345,678.90": number(12345678.9, 2),
		"-999": number(-999, 0), "-1,000": number(-1000, 0),
	} {
		if got != want {
			t.Errorf("%q instead of %q", got, want)
		}
	}
}

// What is published of us is the median of the runs, of the peer its best run; nothing that went wrong is lost.
func TestPublished(t *testing.T) {
	run := func(system string, perSecond float64, wrong ...string) figures {
		return figures{
			System: system, Payers: 8, PerSecond: perSecond, Paid: latencies{P50: 1000 / perSecond}, CPU: map[string]float64{system: perSecond},
			Failures: map[string]int{"503": 1}, Verdict: verdict{Answered: 10, Wrong: wrong, Unanswered: map[string]int{"503": 2}},
		}
	}
	cells := published([]figures{
		run(partOurs, 10, "a"), run(partPeer, 1), run(partOurs, 50), run(partPeer, 5), run(partOurs, 20, "b"), run(partPeer, 2),
	})
	if len(cells) != 2 {
		t.Fatalf("%d cells", len(cells))
	}
	us, peer := cells[0], cells[1]
	if us.System != partOurs || us.PerSecond != 20 || us.Paid.P50 != 50 || us.Payers != 8 || us.CPU[partOurs] != 20 {
		t.Errorf("of us: %+v", us)
	}
	if !slices.Equal(us.Verdict.Wrong, []string{"a", "b"}) || us.Verdict.Answered != 30 {
		t.Errorf("the verdict on us: %+v", us.Verdict)
	}
	if !maps.Equal(us.Failures, map[string]int{"503": 3}) || !maps.Equal(us.Verdict.Unanswered, map[string]int{"503": 6}) {
		t.Errorf("our failures: %+v, %+v", us.Failures, us.Verdict.Unanswered)
	}
	if peer.System != partPeer || peer.PerSecond != 5 || peer.Paid.P50 != 200 {
		t.Errorf("of the peer: %+v", peer)
	}
}

func TestSignatures(t *testing.T) {
	for _, tc := range []struct {
		payers int
		d      time.Duration
		want   int
	}{{1, 10 * time.Second, 1002}, {8, 10 * time.Second, 1002}, {100, 10 * time.Second, 102}, {2048, 10 * time.Second, 6}} {
		if got := signatures(tc.payers, tc.d); got != tc.want {
			t.Errorf("%d for each of %d payers", got, tc.payers)
		}
	}
}

func TestNextBlock(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	w := &watch{seen: []time.Time{at(2), at(4), at(6)}}
	for sent, want := range map[int64]int64{1: 0, 2: 0, 3: 4, 4: 4, 5: 6, 6: 6, 7: 0} { // 0: it was not seen, or what came before was not
		got, ok := w.next(at(sent))
		if ok != (want != 0) || ok && !got.Equal(at(want)) {
			t.Errorf("the block after %d came at %s, %t; want %d", sent, got, ok, want)
		}
	}
}
