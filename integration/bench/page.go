package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
)

// The operator's page in a real browser. Its own test is what drives it, and says how
// smooth it was; this reads what it says.
const smoothTest = "TestPageStaysSmoothAtAThousandEvents"

// What a person notices, in milliseconds.
const (
	longestTask = 200
	longestGap  = 500
)

func (b *bench) page(ctx context.Context) error {
	if _, err := exec.LookPath("chromium"); err != nil {
		return errors.New("chromium is missing: run make deps")
	}
	out, err := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-run", "^"+smoothTest+"$", "revocation-adapter/adapter/page").CombinedOutput()
	round := regexp.MustCompile(`round 1: \{Tasks:(\d+) Longest:([\d.]+) Gap:([\d.]+) Frames:(\d+) Updates:(\d+) Took:([\d.]+)\}`).FindSubmatch(out)
	if round == nil {
		return fmt.Errorf("the page's test says nothing of it: %w: %.2000s", err, out)
	}
	var said [6]float64
	for i := range said {
		if said[i], err = strconv.ParseFloat(string(round[i+1]), 64); err != nil {
			return err
		}
	}
	longest, gap, frames, took := said[1], said[2], said[3], said[5]
	b.add("the operator's page in Chromium, 1,000 revocations/s for 5 s that 1,000 gateways confirm: the longest task, and the longest time without a frame",
		fmt.Sprintf("%.0f ms, %.0f ms (%.0f frames/s)", longest, gap, frames/took), "≤ 200 ms, ≤ 500 ms", longest <= longestTask && gap <= longestGap)
	return nil
}
