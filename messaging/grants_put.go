package messaging

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"revocation-adapter/revocation"
)

// granting is a grant on its way into the registry, and what became of it.
type granting struct {
	Grant
	changed bool
	err     error
	done    chan struct{} // of one that waits in Grants.queue: closed when it is decided
}

// maxGranted is how many grants are written together: of each two tokens.
const maxGranted = 256

// putTogether adds a grant with those of all who come meanwhile. One of the callers
// writes for those who wait, and then the next.
func (g *Grants) putTogether(ctx context.Context, grant Grant) error {
	one := &granting{Grant: grant, done: make(chan struct{})}
	g.mu.Lock()
	g.queue = append(g.queue, one)
	g.mu.Unlock()
	for {
		writing := g.writing
		if !g.queued(one) {
			writing = nil // somebody writes it
		}
		select {
		case <-one.done:
			return one.err
		case writing <- struct{}{}:
			g.lead(ctx)
			<-g.writing
		case <-ctx.Done():
			g.mu.Lock()
			defer g.mu.Unlock()
			g.queue = slices.DeleteFunc(g.queue, func(other *granting) bool { return other == one })
			return fmt.Errorf("put a grant: %w", ctx.Err())
		}
	}
}

func (g *Grants) queued(one *granting) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Contains(g.queue, one)
}

// lead writes what waits. The others must not fail because this caller gives up.
func (g *Grants) lead(ctx context.Context) {
	g.mu.Lock()
	n := min(len(g.queue), maxGranted)
	batch := g.queue[:n:n]
	g.queue = g.queue[n:]
	g.mu.Unlock()
	if n == 0 {
		return
	}
	g.put(context.WithoutCancel(ctx), batch)
	for _, one := range batch {
		close(one.done)
	}
}

// put adds grants together, at most maxGranted, and says what became of each.
func (g *Grants) put(ctx context.Context, grants []*granting) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var batch []*granting
	for _, one := range grants {
		one.err = one.check()
		if one.err == nil && one.Access.Expiry > 0 && one.Access.expired(g.hub.cfg.Now(), g.hub.cfg.Grace) {
			one.err = ErrGrantExpired
		}
		if one.err == nil {
			batch = append(batch, one)
		}
	}
	if len(batch) > 0 {
		g.write(ctx, batch)
	}
}

// write stores a batch, in halves where it is refused for one of its grants.
func (g *Grants) write(ctx context.Context, batch []*granting) {
	pause := firstPause
	for try := 1; ; try++ {
		err := g.try(ctx, batch)
		switch {
		case err == nil:
			return
		case len(batch) > 1 && (conflict(err) || permanent(err) || errors.Is(err, ErrNewerFormat)):
			half := len(batch) / 2
			g.write(ctx, batch[:half])
			g.write(ctx, batch[half:])
			return
		case conflict(err) && try == maxTries:
			refuse(batch, ErrConflict)
			return
		case permanent(err) || errors.Is(err, ErrNewerFormat) || ended(ctx, err):
			refuse(batch, err)
			return
		case !conflict(err):
			pause = wait(ctx, pause)
		}
	}
}

// refuse gives up what has no error of its own.
func refuse(batch []*granting, err error) {
	for _, one := range batch {
		one.changed, one.err = false, cmp.Or(one.err, err)
	}
}

// try reads what is stored of the tokens of a batch, adds the grants to it, and
// writes what that changes, all of it or nothing.
func (g *Grants) try(ctx context.Context, batch []*granting) error {
	room, err := g.room(ctx)
	if err != nil {
		return err
	}
	pages, err := g.readAll(ctx, batch)
	if err != nil {
		return err
	}
	if err := g.revokeLate(ctx, pages, batch); err != nil {
		return err
	}
	for _, one := range batch {
		one.changed, one.err = g.add(pages, one.Grant, room)
	}
	msgs, added, err := g.messages(pages)
	if err != nil || len(msgs) == 0 {
		return err
	}
	callCtx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if _, err := g.hub.publish(callCtx, g.slots, msgs...); err != nil {
		return fmt.Errorf("put a grant: %w", err)
	}
	g.wrote(added)
	return nil
}

// grantPage is what is stored under one subject, and what is to be.
type grantPage struct {
	subject string
	last    uint64 // its sequence; 0: nothing is stored
	dirty   bool
	access  *Grant        // of an access token
	refresh *RefreshGrant // of a refresh token
}

// readAll reads what is stored of the tokens of a batch, from the leader.
func (g *Grants) readAll(ctx context.Context, batch []*granting) (map[string]*grantPage, error) {
	pages := map[string]*grantPage{}
	for _, one := range batch {
		access := accessSubject(one.Access.Domain, one.Access.Digest)
		pages[access] = &grantPage{subject: access, access: &Grant{}}
		if one.Refresh != (GrantToken{}) {
			refresh := refreshSubject(one.Refresh.Digest)
			pages[refresh] = &grantPage{subject: refresh, refresh: &RefreshGrant{}}
		}
	}
	all := make([]*grantPage, 0, len(pages))
	for _, p := range pages {
		all = append(all, p)
	}
	var mu sync.Mutex
	var failed error
	each(all, func(p *grantPage) {
		if err := g.fill(ctx, p); err != nil {
			mu.Lock()
			defer mu.Unlock()
			failed = err
		}
	})
	return pages, failed
}

// fill reads what is stored under a page's subject. What cannot be understood is
// not written over.
func (g *Grants) fill(ctx context.Context, p *grantPage) error {
	data, sequence, err := g.read(ctx, p.subject)
	switch {
	case errors.Is(err, ErrNoGrant):
		return nil
	case err != nil:
		return err
	}
	p.last = sequence
	if p.access != nil {
		*p.access, err = decodeAccessGrant(data)
	} else {
		*p.refresh, err = decodeRefreshGrant(data)
	}
	return err
}

// add puts a grant on its pages, and says whether that changes them.
func (g *Grants) add(pages map[string]*grantPage, grant Grant, room bool) (changed bool, err error) {
	page := pages[accessSubject(grant.Access.Domain, grant.Access.Digest)]
	if page.last == 0 && !page.dirty && !room {
		return false, ErrGrantsFull
	}
	if grant.Refresh != (GrantToken{}) {
		changed, err = g.addToRefresh(pages[refreshSubject(grant.Refresh.Digest)], grant)
		if err != nil {
			return false, err
		}
	}
	old := *page.access
	grant.Access, grant.Refresh = g.join(grant.Access, old.Access), g.join(grant.Refresh, old.Refresh)
	grant.Client, grant.Subject, grant.Tenant = cmp.Or(grant.Client, old.Client), cmp.Or(grant.Subject, old.Subject), cmp.Or(grant.Tenant, old.Tenant)
	if *page.access != grant {
		page.access, page.dirty, changed = &grant, true, true
	}
	return changed, nil
}

// addToRefresh adds a grant to what was issued with its refresh token.
func (g *Grants) addToRefresh(page *grantPage, grant Grant) (changed bool, err error) {
	old := *page.refresh
	next := RefreshGrant{
		Refresh: g.join(grant.Refresh, old.Refresh), Access: g.living(old.Access),
		Client: cmp.Or(grant.Client, old.Client), Subject: cmp.Or(grant.Subject, old.Subject), Tenant: cmp.Or(grant.Tenant, old.Tenant),
	}
	same := func(t GrantToken) bool { return t.Domain == grant.Access.Domain && t.Digest == grant.Access.Digest }
	if i := slices.IndexFunc(next.Access, same); i >= 0 {
		next.Access[i] = g.join(grant.Access, next.Access[i])
	} else {
		next.Access = append(next.Access, g.join(grant.Access, GrantToken{}))
	}
	if len(next.Access) > MaxAccess {
		return false, ErrGrantsMany
	}
	if next.Refresh == old.Refresh && slices.Equal(next.Access, old.Access) && next.Client == old.Client &&
		next.Subject == old.Subject && next.Tenant == old.Tenant {
		return false, nil
	}
	page.refresh, page.dirty = &next, true
	return true, nil
}

// join is t with the later expiry of what was known of the same token, or with
// that of what is unknown.
func (g *Grants) join(t, old GrantToken) GrantToken {
	if t == (GrantToken{}) {
		return old
	}
	if t.Domain == old.Domain && t.Digest == old.Digest {
		t.Kind = cmp.Or(t.Kind, old.Kind)
		if t.Expiry == 0 || !old.Unknown { // what is said stands for what was not
			t.Expiry, t.Unknown = max(t.Expiry, old.Expiry), old.Unknown
		}
	}
	if t.Expiry == 0 {
		t.Expiry, t.Unknown = g.hub.cfg.Now().Add(g.hub.cfg.UnknownLife).UnixMilli(), true
	}
	return t
}

// messages are the pages that are to be written, those of refresh tokens first:
// should a hub ever store only the beginning, what falls with them is found. Added
// is how many tokens were not there.
func (g *Grants) messages(pages map[string]*grantPage) (msgs []*nats.Msg, added uint64, err error) {
	var refresh, access []*nats.Msg
	for _, p := range pages {
		if !p.dirty {
			continue
		}
		msg, err := g.message(p)
		if err != nil {
			return nil, 0, err
		}
		if p.last == 0 {
			added++
		}
		if p.refresh != nil {
			refresh = append(refresh, msg)
		} else {
			access = append(access, msg)
		}
	}
	return append(refresh, access...), added, nil
}

// message is a page as it is stored, for as long as its last token lives.
func (g *Grants) message(p *grantPage) (*nats.Msg, error) {
	var data []byte
	var err error
	var expiry int64
	if p.access != nil {
		data, err = encodeAccessGrant(*p.access)
		expiry = p.access.Access.Expiry
	} else {
		data, err = encodeRefreshGrant(*p.refresh)
		expiry = p.refresh.Refresh.Expiry
		for _, t := range p.refresh.Access {
			expiry = max(expiry, t.Expiry)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	msg := &nats.Msg{Subject: p.subject, Data: data, Header: nats.Header{}}
	expect(msg, p.last)
	life := revocation.Revocation{Expiry: expiry}
	if ttl := life.TTL(g.hub.cfg.Now(), g.hub.cfg.Grace); ttl > 0 {
		msg.Header.Set(jetstream.MsgTTLHeader, strconv.FormatInt(ttl, 10))
	}
	return msg, nil
}
