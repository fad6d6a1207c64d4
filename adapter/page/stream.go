package page

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// The bounds of streams.
const (
	maxStreams   = 32              // of all sessions
	writeTimeout = 5 * time.Second // a reader that takes longer is dropped; it connects again
	keepAlive    = 15 * time.Second
	retryStream  = "5" // seconds, when all are taken
)

// stream is one client that listens to server-sent events.
type stream struct {
	to      http.ResponseWriter
	control *http.ResponseController
	session *session
}

// open begins a stream, or answers why not. The caller ends it by calling done.
func (p *Page) open(w http.ResponseWriter, r *http.Request) (st *stream, done func()) {
	_, s := p.session(r)
	if s == nil {
		p.refuse(w, problem{http.StatusUnauthorized, "Nobody has signed in", ""})
		return nil, nil
	}
	select {
	case p.slots <- struct{}{}:
	default:
		w.Header().Set("Retry-After", retryStream)
		p.refuse(w, problem{http.StatusServiceUnavailable, "Too many pages are open", ""})
		return nil, nil
	}
	select {
	case p.looked <- struct{}{}:
	default: // it is known already
	}
	st = &stream{to: w, control: http.NewResponseController(w), session: s}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx in between would hold events back
	return st, func() { <-p.slots }
}

// send writes one event. An event without a name is a message.
func (st *stream) send(name string, what any) error {
	var buf bytes.Buffer
	if name != "" {
		buf.WriteString("event: " + name + "\n")
	}
	text, err := json.Marshal(what)
	if err != nil {
		return err
	}
	buf.WriteString("data: ")
	buf.Write(text)
	buf.WriteString("\n\n")
	return st.write(buf.Bytes())
}

func (st *stream) write(text []byte) error {
	_ = st.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // a writer that knows none is a test's
	if _, err := st.to.Write(text); err != nil {
		return err
	}
	return st.control.Flush()
}

// bye tells the page that its session is over, so that it asks to sign in and does
// not connect again.
func (st *stream) bye() { _ = st.send("ended", nil) } // it may be gone already

// events streams what the page shows.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	st, done := p.open(w, r)
	if st == nil {
		return
	}
	defer done()
	if err := p.tellAll(r.Context(), st); err != nil {
		p.cfg.Log.WithError(err).Debug("A page has lost its stream")
	}
}

// tellAll returns nil when the reader left, or was told to.
func (p *Page) tellAll(ctx context.Context, st *stream) error {
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	for position := uint64(0); ; {
		f, now, next := p.live.since(position)
		if now > position {
			if err := st.send("", f); err != nil {
				return err
			}
			position = now
		}
		select {
		case <-next:
		case <-alive.C:
			if err := st.write([]byte(": still here\n\n")); err != nil {
				return err
			}
		case <-st.session.ended:
			st.bye()
			return nil
		case <-p.stopped:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}
