package page_test

import (
	"fmt"
	"testing"
	"time"

	"revocation-adapter/revocation"
)

// What the page may take at 1,000 revocations a second, in milliseconds, on a
// machine that does much else: 50 of work at a time is what people do not notice.
const (
	longestTask = 200
	longestGap  = 500
)

// watchFrames measures in the page: tasks of more than 50 ms, the longest time
// between two frames, and how many updates came.
const watchFrames = `(() => {
	const seen = window.seen = { tasks: 0, longest: 0, gap: 0, frames: 0, since: performance.now() };
	new PerformanceObserver((list) => list.getEntries().forEach((e) => { seen.tasks++; seen.longest = Math.max(seen.longest, e.duration); })).observe({ type: "longtask" });
	let last = performance.now();
	const frame = (now) => { seen.gap = Math.max(seen.gap, now - last); last = now; seen.frames++; requestAnimationFrame(frame); };
	requestAnimationFrame(frame);
	seen.updates = 0;
	new MutationObserver(() => seen.updates++).observe(document.getElementById("f-version"), { childList: true, characterData: true, subtree: true });
})()`

type smoothness struct {
	Tasks   int     `json:"tasks"`
	Longest float64 `json:"longest"`
	Gap     float64 `json:"gap"`
	Frames  int     `json:"frames"`
	Updates int     `json:"updates"`
	Took    float64 `json:"took"`
}

// A machine that is busy with something else makes any page stutter: of three
// rounds one must be smooth.
func TestPageStaysSmoothAtAThousandEvents(t *testing.T) {
	s, b := newStage(t), newBrowser(t)
	s.fleet.join(1000, s.version.Load())
	b.enter(s)
	b.Shows("#gateways-count", "1,000")
	const rounds = 3
	for round := range rounds {
		got := s.storm(t, b, round)
		t.Logf("round %d: %+v", round+1, got)
		if most := 4*got.Took + 2; float64(got.Updates) > most {
			t.Errorf("%d updates in %.1f s", got.Updates, got.Took)
		}
		if got.Longest <= longestTask && got.Gap <= longestGap && got.Updates >= stormSeconds {
			break
		}
		if round == rounds-1 {
			t.Errorf("the page stutters: a task of %.0f ms, %.0f ms without a frame, %d updates", got.Longest, got.Gap, got.Updates)
		}
	}
	if rows := eval[int](b, `document.querySelectorAll("tbody tr").length`); rows > 150 {
		t.Errorf("%d rows are in the document", rows)
	}
}

// How long a storm lasts, and how often in a second events come.
const (
	stormSeconds = 5
	stormBeats   = 100
	stormEvents  = 1000 // a second
)

// storm revokes tokens that every gateway confirms, and returns how the page took it.
func (s *stage) storm(t *testing.T, b *browser, round int) smoothness {
	t.Helper()
	b.Do(watchFrames)
	beat := time.NewTicker(time.Second / stormBeats)
	defer beat.Stop()
	last := ""
	for i := range stormSeconds * stormBeats {
		<-beat.C
		for j := range stormEvents / stormBeats {
			last = fmt.Sprintf("b6f9aa44-2d56-4f12-%04x-1d1d%08x", round, stormBeats*i+j)
			s.append(t, last, revocation.Revoked)
		}
		s.log.Publish(s.version.Load())
		s.fleet.confirm(s.version.Load())
	}
	got := eval[smoothness](b, `({ ...window.seen, took: (performance.now() - window.seen.since) / 1000 })`)
	b.Shows("#f-revoked", []string{"5,000", "10,000", "15,000"}[round])
	b.Shows("#changes-rows tr:first-child", last)
	return got
}
