package control

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nuid"

	"revocation-adapter/adapter/clients"
	"revocation-adapter/config"
	"revocation-adapter/config/throttle"
	"revocation-adapter/messaging"
)

// maxForm is the largest form, in bytes: a token fits in a header.
const maxForm = 64 << 10

// call is one request of a client that is known.
type call struct {
	*api
	core    *Core
	client  *clients.Client
	r       *http.Request
	lasting *http.Request // the same, whose context does not end when the client goes away
	w       http.ResponseWriter
	form    url.Values // of endpoints that take one
	event   string     // the id of what it makes
	began   time.Time
	entry   messaging.AuditEntry
	audited bool // it changes something, or was refused
}

// endpoint is how a call is let in.
type endpoint struct {
	action string
	form   bool     // its body is a form, which may carry the credentials
	roles  []string // of which the client needs one; none: any client
	writes bool     // what becomes of it is audited
	do     func(*call) error
}

func (a *api) newCall(w http.ResponseWriter, r *http.Request, e endpoint) *call {
	return &call{
		api: a, r: r, lasting: r.WithContext(context.WithoutCancel(r.Context())), w: w,
		event: nuid.Next(), began: a.cfg.Now(), audited: e.writes,
		entry: messaging.AuditEntry{Actor: "-", Action: e.action, From: throttle.From(r), Replica: a.cfg.Replica},
	}
}

// serve lets a call in, has it done and says what was wrong.
func (a *api) serve(e endpoint) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := a.newCall(w, r, e)
		if err := a.attempt(c, e); err != nil {
			c.refuse(err, e.form) //nolint:contextcheck // the call holds its request
		}
	}
}

// refuse audits a call that was refused or failed, and answers it: as OAuth has it,
// or as a problem.
func (c *call) refuse(err error, oauth bool) {
	f := faultOf(err)
	if f.status >= http.StatusInternalServerError {
		c.failed(err)
	}
	c.refusedAs(f)
	f.write(c.w, oauth, c.cfg.Log)
}

// failed logs why a call is not served: of callers who are not known now and then, for
// they may be many.
func (c *call) failed(err error) {
	say := func() {
		c.cfg.Log.WithError(err).WithField("action", c.entry.Action).Warn("A call of the control API is not served")
	}
	if c.client == nil {
		c.unserved.Do(say)
	} else {
		say()
	}
}

func (a *api) attempt(c *call, e endpoint) error {
	// A browser that remembers Basic credentials sends them with what any page posts.
	if err := a.crossOrigin.Check(c.r); err != nil {
		return forbidden("the request comes from a page of another site")
	}
	if e.form {
		if err := c.readForm(); err != nil {
			return err
		}
	}
	if err := c.identify(e); err != nil {
		return err
	}
	if c.core = a.cfg.Core(); c.core == nil {
		return unavailable("the hub is not open yet")
	}
	return e.do(c)
}

// readForm reads a form of which every parameter is there once at most.
func (c *call) readForm() error {
	kind, _, _ := strings.Cut(c.r.Header.Get("Content-Type"), ";")
	if !strings.EqualFold(strings.TrimSpace(kind), "application/x-www-form-urlencoded") {
		return invalid("the body must be application/x-www-form-urlencoded")
	}
	c.r.Body = http.MaxBytesReader(c.w, c.r.Body, maxForm)
	if err := c.r.ParseForm(); err != nil {
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			return tooLong(maxForm)
		}
		return invalid("the form cannot be read")
	}
	for name, values := range c.r.PostForm {
		if len(values) > 1 {
			return invalid("the parameter " + quoted(name) + " is there more than once")
		}
	}
	if c.r.URL.Query().Has("token") {
		return invalid("a token in the query of a request is logged on its way: put it into the body")
	}
	c.form = c.r.PostForm
	return nil
}

// identify finds out who calls, and whether it may. What a client may not do counts
// as what it does: each refusal is audited.
func (c *call) identify(e endpoint) error {
	if err := c.authenticate(); err != nil {
		return err
	}
	c.entry.Actor = c.client.ID
	if !c.client.Allow() {
		return tooMany(1, "this client asks more often than it may")
	}
	if len(e.roles) > 0 && !slices.ContainsFunc(e.roles, c.client.Has) {
		c.audited = true
		return forbidden("this needs the role " + strings.Join(e.roles, " or "))
	}
	return nil
}

// credentials are what a client shows. Its secret may be read in more than one way.
type credentials struct {
	id       string
	readings []string
}

func (c *call) authenticate() error {
	given, err := c.credentials()
	if err != nil {
		return err
	}
	if given == nil {
		if id, ok := c.cfg.Session(c.r); ok {
			if c.client = c.cfg.Clients.Find(id); c.client != nil {
				return nil
			}
		}
		return unauthorized("who calls is not said: use Basic authentication, with the id and the secret of a client")
	}
	c.client, err = c.cfg.Clients.Authenticate(c.entry.From, given.id, given.readings...)
	if too := (clients.TooManyError{}); errors.As(err, &too) {
		return tooMany(too.Seconds, err.Error())
	}
	if err != nil {
		c.audited = true
		if c.cfg.Clients.Find(given.id) != nil { // anything else may be a secret in the wrong place
			c.entry.Actor = given.id
		}
		return unauthorized(err.Error())
	}
	return nil
}

// credentials finds what the client shows, in one place; nil: nothing.
func (c *call) credentials() (*credentials, error) {
	var found []credentials
	if id, secret, ok := c.r.BasicAuth(); ok {
		found = append(found, c.basic(id, secret))
	}
	if c.form.Has("client_secret") || c.form.Has("client_id") && len(found) == 0 {
		found = append(found, credentials{c.form.Get("client_id"), []string{c.form.Get("client_secret")}})
	}
	query := c.r.URL.Query()
	if query.Has("client_id") || query.Has("client_secret") {
		if !c.cfg.AllowQueryCredentials {
			return nil, invalid("credentials in the query of a request are logged on their way: use Basic authentication or the " +
				"form, or set control.allow_query_credentials")
		}
		found = append(found, credentials{query.Get("client_id"), []string{query.Get("client_secret")}})
	}
	switch len(found) {
	case 0:
		return nil, nil //nolint:nilnil // neither is there
	case 1:
		return &found[0], nil
	}
	return nil, invalid("the client shows its credentials in more than one way")
}

// basic reads Basic credentials as RFC 6749, 2.3.1, has them, each encoded as in a
// form, and as many clients send them: as they are.
func (c *call) basic(id, secret string) credentials {
	given := credentials{id, []string{secret}}
	if decoded, err := url.QueryUnescape(secret); err == nil && decoded != secret {
		given.readings = append(given.readings, decoded)
	}
	if decoded, err := url.QueryUnescape(id); err == nil && c.cfg.Clients.Find(id) == nil {
		given.id = decoded
	}
	return given
}

// operator says whether the caller may see names and addresses.
func (c *call) operator() bool { return c.client.Has(config.RoleOperator) }

// audit keeps what became of the call. What was done stays done if it cannot be
// kept.
func (c *call) audit(outcome string, status int) {
	if !c.audited {
		return
	}
	c.audited = false
	c.entry.ID, c.entry.Time, c.entry.Outcome, c.entry.Status = c.event, c.cfg.Now().UTC(), outcome, status
	log := c.cfg.Log.WithField("action", c.entry.Action).WithField("actor", c.entry.Actor).WithField("outcome", outcome)
	core := c.core
	if core == nil {
		core = c.cfg.Core()
	}
	if core == nil {
		log.Warn("An audit entry is not stored: the hub is not open")
		return
	}
	if err := core.Audit.Add(c.lasting.Context(), c.entry); err != nil { // who went away has done it all the same
		log.WithError(err).WithField("target", c.entry.Target).Error("An audit entry is not stored")
	}
}

// refusedAs audits a call that was refused, or of which nobody knows what became.
func (c *call) refusedAs(f *fault) {
	if f.status == http.StatusTooManyRequests {
		return // there may be many
	}
	if c.audited && c.client == nil && !c.strangers.Allow() {
		c.leftOut.Do(func() {
			c.cfg.Log.WithField("from", c.entry.From).Warn("Callers who are not known are refused so often that the audit does not hold all of it")
		})
		return
	}
	outcome := "refused"
	if f.status >= http.StatusInternalServerError { // what was begun may be done
		outcome = "failed"
	}
	c.audit(outcome, f.status)
}

// printable is text as the audit may hold it.
func printable(text string) string {
	if config.CheckClientID(text) != nil {
		return "-"
	}
	return text
}
