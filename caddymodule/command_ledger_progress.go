package caddymodule

import (
	"fmt"
	"strings"
	"time"
)

// How often progress is told: on a terminal, where a bar is drawn over, and elsewhere, where each time is a line.
const (
	drawEvery  = 200 * time.Millisecond
	plainEvery = 10 * time.Second
)

// progressTeller tells on the standard error how far a long work is: with a bar for each step on a terminal, else with a
// line now and then. Its methods belong to one goroutine.
type progressTeller struct {
	o      *operator
	silent bool

	step        string    // what is done, and of what: "copying payments"
	begun, told time.Time // the step; the last telling
	from        int64     // what was done when the step began: a copy that goes on does not begin at 0
	done, total int64
	drawn       bool // the terminal's cursor stands behind a bar
}

// newProgress begins to tell of a work; silent: not at all.
func (o *operator) newProgress(silent bool) *progressTeller {
	now := time.Now()
	return &progressTeller{o: o, silent: silent, begun: now, told: now}
}

// set tells that done of total things of a step are done; total is 0 where nobody knows it.
func (p *progressTeller) set(step string, done, total int64) {
	if p.silent {
		return
	}
	now := time.Now()
	next := step != p.step
	if next {
		p.end("")
		p.step, p.begun, p.from = step, now, done
	}
	p.done, p.total = done, total
	every := plainEvery
	if p.o.live {
		every = drawEvery
	}
	if !next && now.Sub(p.told) < every {
		return
	}
	p.told = now
	if p.o.live {
		p.draw(now)
	} else {
		p.o.say("%s", p.text())
	}
}

// text is how far the step is.
func (p *progressTeller) text() string {
	switch {
	case p.total > 0:
		return fmt.Sprintf("%s: %d of %d", p.step, p.done, p.total)
	case p.done > 0:
		return fmt.Sprintf("%s: %d", p.step, p.done)
	}
	return p.step
}

// barLength is how many characters a whole bar has.
const barLength = 24

// draw draws the bar over the one before.
func (p *progressTeller) draw(now time.Time) {
	bar, rest := "", ""
	if p.total > 0 {
		full := int(min(p.done, p.total) * barLength / p.total)
		bar = strings.Repeat("█", full) + strings.Repeat("░", barLength-full) + fmt.Sprintf(" %3d%% ", min(p.done, p.total)*100/p.total)
	}
	// What takes no time has no speed.
	if took := now.Sub(p.begun).Seconds(); took >= 1 && float64(p.done-p.from) >= took {
		speed := int64(float64(p.done-p.from) / took)
		rest = fmt.Sprintf(", %d/s", speed)
		if left := p.total - p.done; left > 0 {
			rest += fmt.Sprintf(", %s left", time.Duration(left/speed)*time.Second)
		}
	}
	p.drawn = true
	fmt.Fprintf(p.o.err, "\r\x1b[K%s%s%s", bar, p.text(), rest)
}

// end leaves the bar of a step as it is in the end.
func (p *progressTeller) end(how string) {
	if p.drawn {
		p.draw(time.Now())
		fmt.Fprintln(p.o.err, how)
		p.drawn = false
	}
}

// stop ends the telling; well says that the work is done.
func (p *progressTeller) stop(well bool) {
	how := ""
	if !well {
		how = " (stopped)"
	}
	p.end(how)
}
