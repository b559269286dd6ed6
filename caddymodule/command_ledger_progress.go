package caddymodule

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
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

	step string                   // what is done, and of what: "copying payments"
	bar  *progressbar.ProgressBar // of the step; none where it is told in lines
	told time.Time                // the last line
}

// newProgress begins to tell of a work; silent: not at all.
func (o *operator) newProgress(silent bool) *progressTeller {
	return &progressTeller{o: o, silent: silent}
}

// set tells that done of total things of a step are done; total is 0 where nobody knows it.
func (p *progressTeller) set(step string, done, total int64) {
	if p.silent {
		return
	}
	if total > 0 {
		done = min(done, total)
	}
	next := step != p.step
	if next {
		p.end(true, "")
		p.step = step
		// What is done when it is first told of needs no bar.
		if p.o.live && (total == 0 || done < total) {
			p.bar = newBar(p.o.err, step, done, total)
		}
	}
	switch {
	case p.bar != nil:
		_ = p.bar.Set64(done) // that a bar can't be drawn stops no work
	case next || !p.o.live && time.Since(p.told) >= plainEvery:
		p.told = time.Now()
		p.o.say("%s", progressText(step, done, total))
	}
}

// newBar draws the bar of a step. It starts no goroutine: it is drawn when it is set.
func newBar(w io.Writer, step string, done, total int64) *progressbar.ProgressBar {
	_, things, _ := strings.Cut(step, " ")
	options := []progressbar.Option{
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(step),
		progressbar.OptionSetItsString(things),
		progressbar.OptionSetWidth(24),
		progressbar.OptionShowCount(),
		progressbar.OptionShowTotalBytes(total > 0),
		progressbar.OptionThrottle(drawEvery),
		progressbar.OptionSetSpinnerChangeInterval(0),
		progressbar.OptionUseANSICodes(true),
		progressbar.OptionSetRenderBlankState(true),
	}
	if total == 0 {
		total = -1
		if done > 0 { // it began before: its speed is not known
			return progressbar.NewOptions64(total, options...)
		}
	}
	return progressbar.NewOptions64(total, append(options, progressbar.OptionShowIts())...)
}

// progressText is how far a step is.
func progressText(step string, done, total int64) string {
	switch {
	case total > 0:
		return fmt.Sprintf("%s: %d of %d", step, done, total)
	case done > 0:
		return fmt.Sprintf("%s: %d", step, done)
	}
	return step
}

// end leaves the bar of a step as it is in the end; well: nothing of it is left to do.
func (p *progressTeller) end(well bool, how string) {
	if p.bar == nil {
		return
	}
	switch s := p.bar.State(); {
	case well && s.Max < 0:
		_ = p.bar.Finish()
	case well: // a copy that goes on has less to do
		p.bar.ChangeMax64(s.CurrentNum)
	}
	fmt.Fprintln(p.o.err, how)
	p.bar = nil
}

// stop ends the telling; well says that the work is done.
func (p *progressTeller) stop(well bool) {
	how := ""
	if !well {
		how = " (stopped)"
	}
	p.end(well, how)
}
