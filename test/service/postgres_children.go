//go:build unix

package service

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// childrenOf lists the processes that pid has started.
func childrenOf(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		return childrenByPS(pid)
	}
	var got []int
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || err != nil && strings.Contains(err.Error(), "no such process") {
			continue // it has ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		// "id (name) state parent ...", and the name may hold anything.
		_, rest, _ := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(" "))
		fields := strings.Fields(string(rest))
		if len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		id, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		got = append(got, id)
	}
	return got, nil
}

// childrenByPS is for systems without /proc.
func childrenByPS(pid int) ([]int, error) {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var got []int
	for line := range strings.Lines(string(out)) {
		var id, parent int
		if _, err := fmt.Sscan(line, &id, &parent); err == nil && parent == pid {
			got = append(got, id)
		}
	}
	return got, nil
}
