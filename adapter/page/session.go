package page

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"time"
)

// The bounds of sessions.
const (
	maxSessions = 64             // of all clients; one more ends the one that was used least recently
	maxAge      = 12 * time.Hour // after which a session ends, whatever happens in it
)

// sessions are those who have signed in. Of the random id in a client's cookie
// only the digest is kept: who reads our memory cannot become somebody else.
type sessions struct {
	now  func() time.Time
	idle time.Duration

	mu  sync.Mutex
	all map[[sha256.Size]byte]*session
}

// session is one client that has signed in, in one browser.
type session struct {
	client string
	secret string // what Config.Secret said when it began
	began  time.Time
	ended  chan struct{}     // closed when it ends
	digest [sha256.Size]byte // of its id

	used time.Time // held by sessions.mu
}

func newSessions(now func() time.Time, idle time.Duration) *sessions {
	return &sessions{now: now, idle: idle, all: map[[sha256.Size]byte]*session{}}
}

// begin returns the id of a new session.
func (ss *sessions) begin(client, secret string) (id string) {
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // it never fails
	id = base64.RawURLEncoding.EncodeToString(raw[:])
	now := ss.now()
	s := &session{client: client, secret: secret, began: now, used: now, digest: sha256.Sum256([]byte(id)), ended: make(chan struct{})}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if len(ss.all) >= maxSessions {
		ss.drop(ss.oldest())
	}
	ss.all[s.digest] = s
	return id
}

func (ss *sessions) oldest() (oldest *session) {
	for _, s := range ss.all {
		if oldest == nil || s.used.Before(oldest.used) {
			oldest = s
		}
	}
	return oldest
}

// find returns the session with an id, nil if there is none or its time is over.
func (ss *sessions) find(id string) *session {
	digest := sha256.Sum256([]byte(id))
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.all[digest]
	if s == nil {
		return nil
	}
	if ss.over(s) {
		ss.drop(s)
		return nil
	}
	return s
}

// touch keeps a session from ending for another while.
func (ss *sessions) touch(s *session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s.used = ss.now()
}

func (ss *sessions) end(s *session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.all[s.digest] == s {
		ss.drop(s)
	}
}

// sweep ends the sessions whose time is over, and those of clients that are no
// longer admitted.
func (ss *sessions) sweep(admitted func(*session) bool) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, s := range ss.all {
		if ss.over(s) || !admitted(s) {
			ss.drop(s)
		}
	}
}

// over and drop want the lock held.
func (ss *sessions) over(s *session) bool {
	now := ss.now()
	return now.Sub(s.used) >= ss.idle || now.Sub(s.began) >= maxAge
}

func (ss *sessions) drop(s *session) {
	delete(ss.all, s.digest)
	close(s.ended)
}

// tokenOf is what a write in the session with an id must carry beside the cookie.
// It follows from the id, so that nobody keeps it, and does not give it away.
func tokenOf(id string) string {
	mac := hmac.New(sha256.New, []byte(id))
	mac.Write([]byte("the token of a write"))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
