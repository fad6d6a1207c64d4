package xds

import (
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"revocation-adapter/revocation"
)

// Clients that ask for tokens by name, on either protocol. Each is told of the
// names it has newly asked for, whole, and of what changes among the rest.

// ask finds the names that are newly asked for, once for all publications.
func (w *sotwWatch) ask() {
	for name := range w.sub.SubscribedResources() {
		if _, ok := w.known()[name]; !ok {
			w.fresh = append(w.fresh, name)
		}
	}
}

// known are the names that the client has been told of.
func (w *sotwWatch) known() map[string]string {
	if w.whole {
		return nil
	}
	return w.sub.ReturnedResources()
}

// named is the answer to a state-of-the-world watch by name, or nil.
func (w *sotwWatch) named(s *revocation.Snapshot, now time.Time) cache.Response {
	e, known := w.st.encoder(now), w.known()
	names, more := map[string]string{}, false
	for _, name := range w.fresh {
		if more = len(names) > 0 && e.full(len(name)); more { // even the longest has its turn
			break
		}
		e.look(w.st.cache.log, name, everyTenant)
		names[name] = "1"
	}
	if more { // the version is reached with the last of the names
		e.finish(w.claim)
	} else {
		e.collect(s, w.position, func(_ revocation.Change, name []byte) bool {
			_, ok := known[string(name)]
			return !ok
		})
	}
	if e.chunk.entries == 0 && len(w.fresh) == 0 && !w.greet {
		w.pass(e.chunk)
		return nil
	}
	for name := range known {
		names[name] = "1"
	}
	return &sotwResponse{st: w.st, req: w.req, chunk: e.chunk, names: names}
}

// everyTenant: what is asked for by name is told, whosever it is.
func everyTenant(revocation.Change) bool { return true }

// look adds the key called name as it is now: revoked, or removed where the
// protocol can say so, or the client does not hear of it.
func (e *encoder) look(log *revocation.Log, name string, hears func(revocation.Change) bool) {
	k := e.chunk.kind
	c, found := k.lookup(log, name)
	switch {
	case found && k.counts(c, e.now, e.grace) && hears(c):
		e.add(c, []byte(name))
	case e.form == delta:
		e.remove([]byte(name))
	}
}

// counts says whether gateways are told of a key that it is revoked.
func (k kind) counts(c revocation.Change, now time.Time, grace time.Duration) bool {
	return k.served(c.Domain) && c.State == revocation.Revoked && !c.Expired(now, grace)
}
