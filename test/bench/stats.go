package main

import (
	"math"
	"slices"
	"time"
)

// latencies are in milliseconds.
type latencies struct {
	P50 float64 `json:"p50_ms"`
	P95 float64 `json:"p95_ms"`
	P99 float64 `json:"p99_ms"`
}

// latenciesOf sorts all.
func latenciesOf(all []time.Duration) latencies {
	slices.Sort(all)
	return latencies{P50: ms(percentile(all, 50)), P95: ms(percentile(all, 95)), P99: ms(percentile(all, 99))}
}

// percentile is the smallest value that p percent of the sorted values don't exceed; 0 without values.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*p+99)/100-1]
}

// median sorts all; of an even number it is the mean of the two in the middle.
func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	n := len(all)
	return (all[(n-1)/2] + all[n/2]) / 2
}

func mean(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	var sum time.Duration
	for _, d := range all {
		sum += d
	}
	return sum / time.Duration(len(all))
}

func ms(d time.Duration) float64 { return round(float64(d)/float64(time.Millisecond), 3) }

// ratio is 0 where it means nothing.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func round(v float64, digits int) float64 {
	unit := math.Pow10(digits)
	return math.Round(v*unit) / unit
}
