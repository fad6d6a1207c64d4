package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/sirupsen/logrus"

	"revocation-adapter/config/basicauth"
)

// Notify is the endpoint at which key managers announce revocations.
type Notify struct {
	basicauth.Credentials
	// Take stores what a body says, and returns when it is stored. An error that
	// wraps ErrNotUnderstood is the sender's, every other one ours.
	Take func(ctx context.Context, body []byte) error
}

// ErrNotUnderstood means that a body makes no revocation. The sender is told the
// whole error.
var ErrNotUnderstood = errors.New("the notification is not understood")

const (
	notifyPath       = "/internal/data/v1/notify"
	keyManagerHeader = "X-WSO2-KEY-MANAGER"
	maxNotify        = 4 << 20 // bytes of a body
	retryAfter       = "2"     // seconds, when the hub cannot take it
)

// notifier serves Notify.
type notifier struct {
	cfg   Notify
	log   logrus.FieldLogger
	guard *basicauth.Guard
}

func newNotifier(cfg Notify, log logrus.FieldLogger) *notifier {
	return &notifier{cfg: cfg, log: log, guard: basicauth.New(cfg.Credentials, "revocation-adapter", log)}
}

// ServeHTTP answers 200 when the log has what the body says, 4xx to what cannot
// be taken from this sender, and 503 to what another try may store.
func (n *notifier) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !n.guard.Admits(w, r) {
		return
	}
	if r.Header.Get(keyManagerHeader) == "" {
		n.refuse(w, http.StatusBadRequest, "the header "+keyManagerHeader+" is missing")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxNotify))
	if err != nil {
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			n.refuse(w, http.StatusRequestEntityTooLarge, "the body is larger than "+strconv.Itoa(maxNotify)+" bytes")
		} else {
			n.refuse(w, http.StatusBadRequest, "the body does not end")
		}
		return
	}
	switch err := n.cfg.Take(r.Context(), body); {
	case err == nil:
		w.WriteHeader(http.StatusOK)
	case errors.Is(err, ErrNotUnderstood):
		n.refuse(w, http.StatusBadRequest, err.Error())
	default:
		n.log.WithError(err).Warn("A notification is not stored, its sender must try again")
		w.Header().Set("Retry-After", retryAfter)
		n.refuse(w, http.StatusServiceUnavailable, "it is not stored: try again")
	}
}

func (n *notifier) refuse(w http.ResponseWriter, code int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(map[string]string{"error": reason}); err != nil {
		n.log.WithError(err).Debug("An answer could not be sent")
	}
}
