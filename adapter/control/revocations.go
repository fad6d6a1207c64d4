package control

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"revocation-adapter/adapter/receipts"
	"revocation-adapter/messaging"
	"revocation-adapter/revocation"
)

// listAnswer says what became of a list.
type listAnswer struct {
	Version   uint64          `json:"version"`
	EventID   string          `json:"event_id"`
	New       int             `json:"new"`
	Already   int             `json:"already"`
	Expired   int             `json:"expired"`
	Tenants   []string        `json:"tenants,omitempty"` // whose it is; none: everybody is told, or the caller is no operator
	Gateways  *figures        `json:"gateways,omitempty"`
	TookMS    int64           `json:"took_ms"`
	Concerned []receipts.Part `json:"-"`
}

// dryAnswer says what would become of it.
type dryAnswer struct {
	New               int `json:"new"`
	Already           int `json:"already"`
	Expired           int `json:"expired"`
	UnknownToGrants   int `json:"unknown_to_grants"`
	GatewaysConcerned int `json:"gateways_concerned"`
}

// kept is an answer that is given again to the same key.
type kept struct {
	Request   string          `json:"request"` // SHA-256 of the body
	Answer    listAnswer      `json:"answer"`
	Concerned []receipts.Part `json:"concerned,omitempty"`
}

// revokeList stores a list of tokens and rules: all of it is checked before
// anything is stored, and a call that comes again with the same Idempotency-Key
// goes on where the first ended.
func (c *call) revokeList() error {
	if err := c.isJSON(); err != nil {
		return err
	}
	text, err := c.body(c.client.MaxBody)
	if err != nil {
		return err
	}
	var l list
	if err := parseJSON(text, &l); err != nil {
		return err
	}
	key, sum := c.r.Header.Get("Idempotency-Key"), sha256.Sum256(text)
	request := hex.EncodeToString(sum[:])
	if err := checkKey(key); err != nil {
		return err
	}
	if l.State == revocation.Approved.String() {
		c.event = c.approvalID(key, request)
	}
	records, fault := c.records(&l)
	if fault != nil {
		return fault
	}
	if l.DryRun {
		c.audited = false // nothing is done
		return c.tellDry(records)
	}
	if key != "" {
		done, err := c.doneBefore(key, request)
		if err != nil || done {
			return err
		}
	}
	answer, err := c.storeList(records)
	if err != nil {
		return err
	}
	return c.tellList(answer, kept{Request: request}, key)
}

// checkKey refuses a key that cannot be one.
func checkKey(key string) error {
	if len(key) > maxKey || !visible(key) {
		return invalid("Idempotency-Key must be at most 255 printable ASCII characters")
	}
	return nil
}

// approvalID is the id of a list of approvals. With a key one that comes again is the
// same event: it must not overturn what was revoked since, though the first answer was
// never kept, or is no longer. A list of revocations is a new event then: what was
// approved since is revoked, as the answer says.
func (c *call) approvalID(key, request string) string {
	if key == "" {
		return c.event
	}
	sum := sha256.Sum256([]byte(c.client.ID + "\x00" + key + "\x00" + request))
	return "key-" + hex.EncodeToString(sum[:11])
}

// doneBefore answers as before, if the key was used for the same body.
func (c *call) doneBefore(key, request string) (done bool, err error) {
	text, found, err := c.core.Answers.Find(c.r.Context(), c.client.ID, key)
	if err != nil {
		return false, readFault(err)
	}
	if !found {
		return false, nil
	}
	var k kept
	if err := json.Unmarshal(text, &k); err != nil {
		return false, readFault(err)
	}
	if k.Request != request {
		return true, &fault{
			status: http.StatusUnprocessableEntity, code: "invalid_request",
			detail: "this Idempotency-Key was used for another body",
		}
	}
	c.audited = false
	if wait, asked := prefersWait(c.r.Header); asked && len(k.Concerned) > 0 { // how gateways stood then is no receipt
		r, err := c.waited(receipts.Query{Version: k.Answer.Version, Parts: k.Concerned}, wait)
		if err != nil {
			return true, err
		}
		k.Answer.Gateways = c.figures(r)
	}
	c.w.Header().Set("Idempotent-Replayed", "true")
	return true, c.json(k.Answer)
}

// alive leaves out what has expired, and counts it.
func (c *call) alive(records []revocation.Revocation) (alive []revocation.Revocation, gone int) {
	for _, r := range records {
		if r.Expired(c.cfg.Now(), c.cfg.Grace) {
			gone++
		} else {
			alive = append(alive, r)
		}
	}
	return alive, gone
}

// storeList stores records to the last. What is stored when it fails is found there
// when the list comes again.
func (c *call) storeList(records []revocation.Revocation) (listAnswer, error) {
	alive, gone := c.alive(records)
	answer := listAnswer{EventID: c.event, Expired: gone}
	alive, others, err := c.approvable(alive)
	if err != nil {
		return answer, err
	}
	answer.Already = others
	outcomes := c.core.Decisions.Put(c.lasting.Context(), alive...)
	if err := firstError(outcomes); err != nil {
		return answer, err
	}
	e := effect{}
	for i, o := range outcomes {
		e.state = alive[i].State
		e.note(alive[i], o)
		if effective(alive[i].Domain, alive[i].State, o) {
			answer.New++
		} else {
			answer.Already++
		}
	}
	answer.Version, answer.Concerned = e.version, e.query().Parts
	if c.operator() {
		answer.Tenants = whose(answer.Concerned)
	}
	return answer, nil
}

// whose are the tenants of what was changed; none: everybody is told.
func whose(parts []receipts.Part) (tenants []string) {
	for _, part := range parts {
		if len(part.Tenants) == 0 || slices.Contains(part.Tenants, "") {
			return nil
		}
		tenants = append(tenants, part.Tenants...)
	}
	slices.Sort(tenants)
	return slices.Compact(tenants)
}

// approvable leaves out approvals of what is not revoked, and counts them: nothing
// is stored of those.
func (c *call) approvable(records []revocation.Revocation) (left []revocation.Revocation, others int, err error) {
	if len(records) == 0 || records[0].State != revocation.Approved {
		return records, 0, nil
	}
	revoked := make([]bool, len(records))
	err = c.lookUp(len(records), func(ctx context.Context, i int) error {
		old, err := c.core.Hub.Record(ctx, records[i].Domain, records[i].Digest)
		revoked[i] = err == nil && old.State == revocation.Revoked && !old.Expired(c.cfg.Now(), c.cfg.Grace)
		if errors.Is(err, messaging.ErrNoRecord) {
			return nil
		}
		return err
	})
	for i, r := range records {
		if revoked[i] {
			left = append(left, r)
		} else {
			others++
		}
	}
	return left, others, err
}

// maxLookups bounds how many records are looked up at the same time.
const maxLookups = 16

// lookUp looks n things up, some at the same time.
func (c *call) lookUp(n int, one func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(c.r.Context())
	group.SetLimit(maxLookups)
	for i := range n {
		group.Go(func() error { return one(ctx, i) })
	}
	if err := group.Wait(); err != nil {
		return readFault(err)
	}
	return nil
}

func (c *call) tellList(answer listAnswer, k kept, key string) error {
	c.cfg.Log.WithFields(logrus.Fields{
		"new": answer.New, "already": answer.Already, "expired": answer.Expired, "event": answer.EventID,
	}).Info("A list is stored")
	c.entry.EventID, c.entry.Version = c.event, answer.Version
	c.entry.Target = cmp.Or(c.entry.Target, strconv.Itoa(answer.New)+" new")
	outcome := "stored"
	if answer.New == 0 {
		outcome = none
	}
	c.audit(outcome, http.StatusOK)
	if wait, asked := prefersWait(c.r.Header); asked {
		r, err := c.waited(receipts.Query{Version: answer.Version, Parts: answer.Concerned}, wait)
		switch {
		case err == nil:
			answer.Gateways = c.figures(r)
		case c.r.Context().Err() == nil:
			return err
		} // who went away finds the answer under its key, without figures
	}
	answer.TookMS = c.took()
	k.Answer, k.Concerned = answer, answer.Concerned
	if text, err := json.Marshal(k); key != "" && err == nil {
		err := c.core.Answers.Keep(c.lasting.Context(), c.client.ID, key, text)
		if err != nil && !errors.Is(err, messaging.ErrAnswerKept) {
			c.cfg.Log.WithError(err).Warn("An answer is not kept: the same call would be served again, without another effect")
		}
	}
	return c.json(answer)
}

// tellDry says what would become of a list.
func (c *call) tellDry(records []revocation.Revocation) error {
	alive, gone := c.alive(records)
	alive, others, err := c.approvable(alive)
	if err != nil {
		return err
	}
	answer, e := dryAnswer{Expired: gone, Already: others}, effect{version: c.cfg.Revocations.Snapshot().Version()}
	var unknown []revocation.Revocation
	for _, r := range alive {
		e.state = r.State
		already, tenant := c.would(r)
		e.note(r, messaging.Outcome{Version: e.version, Tenant: tenant})
		if already {
			answer.Already++
		} else {
			answer.New++
		}
		if r.Domain != revocation.DomainRule && r.Domain != revocation.DomainRefresh {
			unknown = append(unknown, r)
		}
	}
	if answer.UnknownToGrants, err = c.ungranted(unknown); err != nil {
		return err
	}
	stands, err := c.await(c.r.Context(), e.query(), 0)
	if err != nil {
		return err
	}
	answer.GatewaysConcerned = stands.Enforced + len(stands.Pending) + len(stands.Unreachable) + stands.Cannot
	return c.json(answer)
}

// would says of a record whether the log says it already, and whose it would be.
func (c *call) would(r revocation.Revocation) (already bool, tenant string) {
	if r.Domain == revocation.DomainRefresh {
		_, state, found := c.cfg.Revocations.Find(r.Domain, r.Key, r.Digest)
		return found && state == r.State, r.Tenant
	}
	find := c.cfg.Revocations.Lookup
	if r.Domain == revocation.DomainRule {
		find = c.cfg.Revocations.LookupRule
	}
	old, found := find(r.Name())
	if !found {
		return false, r.Tenant
	}
	if old.Tenant == r.Tenant {
		tenant = r.Tenant
	}
	return old.State == r.State && old.Before() >= r.Before, tenant
}

// ungranted counts the tokens that were not registered when they were issued.
func (c *call) ungranted(records []revocation.Revocation) (n int, err error) {
	var missing atomic.Int64
	err = c.lookUp(len(records), func(ctx context.Context, i int) error {
		_, err := c.core.Grants.Access(ctx, records[i].Domain, records[i].Digest)
		if errors.Is(err, messaging.ErrNoGrant) {
			missing.Add(1)
			return nil
		}
		return err
	})
	return int(missing.Load()), err
}
