package control

import (
	"cmp"
	"errors"
	"net/http"
	"strconv"
	"time"

	"revocation-adapter/adapter/receipts"
	"revocation-adapter/messaging"
)

// listGateways tells of every gateway of every replica.
func (c *call) listGateways() error {
	all, err := c.core.Receipts.Gateways(c.r.Context())
	if errors.Is(err, receipts.ErrNotReady) {
		return unavailable(err.Error())
	}
	if err != nil {
		return err
	}
	return c.json(struct {
		Replicas []string           `json:"replicas"`
		Gateways []receipts.Gateway `json:"gateways"`
	}{named(c.core.Receipts.Replicas()), append([]receipts.Gateway{}, all...)})
}

// How many entries a page has.
const (
	pageOf = 100
	maxOf  = 1000
)

// limit reads how many entries are wanted.
func (c *call) limit() (int, error) {
	text := c.r.URL.Query().Get("limit")
	n, err := strconv.Atoi(cmp.Or(text, strconv.Itoa(pageOf)))
	if err != nil || n < 1 || n > maxOf {
		return 0, invalid("limit must be from 1 to 1000")
	}
	return n, nil
}

func (c *call) number(name string) (uint64, error) {
	text := c.r.URL.Query().Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, invalid(name + " must be a sequence")
	}
	return n, nil
}

// listAudit tells who did what: the newest first, or from a time on.
func (c *call) listAudit() error {
	limit, err := c.limit()
	if err != nil {
		return err
	}
	before, err := c.number("before")
	if err != nil {
		return err
	}
	query := c.r.URL.Query()
	q := messaging.AuditQuery{
		Before: before, Actor: query.Get("actor"), Action: query.Get("action"), Target: query.Get("target"),
	}
	if since := query.Get("since"); since != "" {
		if q.Since, err = time.Parse(time.RFC3339, since); err != nil {
			return invalid("since must be a time as RFC 3339 has them")
		}
	}
	entries := []messaging.AuditEntry{}
	for entry, err := range messaging.AuditEntries(c.r.Context(), c.core.Hub.Conn(), q) {
		if errors.Is(err, messaging.ErrAudit) {
			return invalid(err.Error())
		}
		if err != nil {
			return readFault(err)
		}
		if entries = append(entries, entry); len(entries) == limit {
			break
		}
	}
	return c.json(map[string]any{"entries": entries})
}

// listLetters tells of the dead letters after a sequence, without their events.
func (c *call) listLetters() error {
	limit, err := c.limit()
	if err != nil {
		return err
	}
	after, err := c.number("after")
	if err != nil {
		return err
	}
	letters := []messaging.DeadLetter{}
	for d, err := range messaging.DeadLetters(c.r.Context(), c.core.Hub.Conn()) {
		if err != nil {
			return readFault(err)
		}
		if d.Sequence <= after {
			continue
		}
		d.Event = nil
		if letters = append(letters, d); len(letters) == limit {
			break
		}
	}
	return c.json(map[string]any{"dead_letters": letters})
}

// deadLetter is the one that the path names.
func (c *call) deadLetter() (messaging.DeadLetter, error) {
	n, err := strconv.ParseUint(c.r.PathValue("sequence"), 10, 64)
	if err != nil {
		return messaging.DeadLetter{}, notFound("a dead letter is called by its number")
	}
	d, err := messaging.FindDeadLetter(c.r.Context(), c.core.Hub.Conn(), n)
	switch {
	case errors.Is(err, messaging.ErrNoDeadLetter):
		return d, notFound(err.Error())
	case err != nil:
		return d, readFault(err)
	}
	c.entry.Target = strconv.FormatUint(n, 10)
	return d, nil
}

func (c *call) showLetter() error {
	d, err := c.deadLetter()
	if err != nil {
		return err
	}
	return c.json(d)
}

func (c *call) replayLetter() error {
	d, err := c.deadLetter()
	if err != nil {
		return err
	}
	sequence, err := messaging.Replay(c.r.Context(), c.core.Hub.Conn(), d)
	switch {
	case errors.Is(err, messaging.ErrIncomplete):
		return &fault{status: http.StatusConflict, code: "invalid_request", detail: err.Error()}
	case err != nil:
		return storeFault(err)
	}
	c.audit("replayed", http.StatusOK)
	return c.json(map[string]uint64{"sequence": d.Sequence, "stored": sequence})
}

func (c *call) removeLetter() error {
	d, err := c.deadLetter()
	if err != nil {
		return err
	}
	if err := messaging.RemoveDeadLetter(c.r.Context(), c.core.Hub.Conn(), d.Sequence); err != nil {
		return storeFault(err)
	}
	c.audit("removed", http.StatusNoContent)
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
