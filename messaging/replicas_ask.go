package messaging

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"golang.org/x/sync/errgroup"
)

// Questions go over core NATS, to subjects that no stream captures, in the account
// of the hub's streams.
const (
	serviceName     = "revocation-adapter"
	serviceVersion  = "1.0.0" // of the questions
	metadataReplica = "replica"
	questionSubject = "adapter"
	headerFrom      = "Revocation-From"   // replica that asks or answers
	headerWithin    = "Revocation-Within" // milliseconds until the asker's deadline
	headerPart      = "Revocation-Part"   // of an answer that is longer than a message: number/of
)

// Bounds of questions that are answered at the same time, of their deadlines, and
// of a message, which is a megabyte at most.
const (
	maxQuestions  = 1000
	maxWithin     = 5 * time.Minute
	defaultWithin = 5 * time.Second
	maxPart       = 512 << 10
	maxParts      = 200
)

// Answer is what a replica answered.
type Answer struct {
	Replica string
	Data    []byte
}

// ErrNoAnswer means that no replica answered in time.
var ErrNoAnswer = errors.New("no adapter answers")

// Ask asks all replicas, this one included, and returns when all that are known
// have answered or ctx, which has a deadline, ends. Silent are the known that did
// not answer.
func (r *Replicas) Ask(ctx context.Context, endpoint string, data []byte) (answers []Answer, silent []string, err error) {
	question := r.cfg.Questions[endpoint]
	if question == nil {
		return nil, nil, fmt.Errorf("ask: there is no question %q", endpoint)
	}
	select {
	case <-r.loaded:
	default:
		return nil, nil, ErrPresence
	}
	others := slices.DeleteFunc(r.Known(), func(name string) bool { return name == r.cfg.Name })
	var own Answer
	group := new(errgroup.Group)
	group.Go(func() (err error) {
		own.Replica = r.cfg.Name
		own.Data, err = question(ctx, data)
		return err
	})
	a := &asking{conn: r.hub.conn, from: r.cfg.Name, subject: subjectOfAll(endpoint), data: data}
	heard := a.askAll(ctx, others)
	if err := group.Wait(); err != nil {
		return nil, nil, fmt.Errorf("ask: %w", err)
	}
	for _, name := range others {
		if !slices.ContainsFunc(heard, func(a Answer) bool { return a.Replica == name }) {
			silent = append(silent, name)
		}
	}
	answers = append(heard, own)
	slices.SortFunc(answers, byName)
	return answers, silent, nil
}

// AskAny asks one replica of the hub behind conn: the one that is the first to say
// that it is there. It is for who is none himself.
func AskAny(ctx context.Context, conn *nats.Conn, endpoint string, data []byte) ([]byte, error) {
	replica, err := anyReplica(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	a := &asking{conn: conn, subject: subjectOfOne(endpoint, replica), data: data}
	answers := a.askAll(ctx, []string{replica})
	switch {
	case len(answers) > 0:
		return answers[0].Data, nil
	case a.err != nil:
		return nil, fmt.Errorf("%w: %w", ErrNoAnswer, a.err)
	}
	return nil, fmt.Errorf("%w: %w", ErrNoAnswer, context.Cause(ctx))
}

// anyReplica is the first that answers.
func anyReplica(ctx context.Context, conn *nats.Conn) (string, error) {
	subject, err := micro.ControlSubject(micro.PingVerb, serviceName, "")
	if err != nil {
		return "", err
	}
	msg, err := conn.RequestWithContext(ctx, subject, nil)
	if err != nil {
		return "", err
	}
	var ping micro.Ping
	if err := json.Unmarshal(msg.Data, &ping); err != nil {
		return "", fmt.Errorf("answer to %s: %w", subject, err)
	}
	return ping.Metadata[metadataReplica], nil
}

// Questions go to all replicas, or to one.
func subjectOfAll(endpoint string) string { return questionSubject + "." + endpoint }

func subjectOfOne(endpoint, replica string) string { return subjectOfAll(endpoint) + "." + replica }

// asking is one question, asked over the hub.
type asking struct {
	conn    *nats.Conn
	from    string // replica; "": the command line
	subject string
	data    []byte

	answers []Answer
	parts   map[string][][]byte
	err     error // why there are no more
}

// askAll collects answers until all of others have answered.
func (a *asking) askAll(ctx context.Context, others []string) []Answer {
	if len(others) == 0 {
		return nil
	}
	inbox := a.conn.NewInbox()
	sub, err := a.conn.SubscribeSync(inbox)
	if err != nil {
		a.err = err
		return nil
	}
	defer sub.Unsubscribe() //nolint:errcheck // the connection is closed, then
	if a.err = a.send(ctx, inbox); a.err != nil {
		return nil
	}
	missing := slices.Clone(others)
	for len(missing) > 0 {
		msg, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
				a.err = err
			}
			break
		}
		replica := a.take(msg)
		missing = slices.DeleteFunc(missing, func(name string) bool { return name == replica })
	}
	return a.answers
}

func (a *asking) send(ctx context.Context, inbox string) error {
	within := defaultWithin
	if deadline, ok := ctx.Deadline(); ok {
		within = time.Until(deadline)
	}
	msg := nats.NewMsg(a.subject)
	msg.Reply, msg.Data = inbox, a.data
	msg.Header.Set(headerFrom, a.from)
	msg.Header.Set(headerWithin, strconv.FormatInt(within.Milliseconds(), 10))
	return a.conn.PublishMsg(msg)
}

// take takes a message, and returns whose answer is whole with it. A replica that
// cannot answer is as good as silent.
func (a *asking) take(msg *nats.Msg) (replica string) {
	if code := msg.Header.Get(micro.ErrorCodeHeader); code != "" {
		a.err = fmt.Errorf("%s: %s", code, msg.Header.Get(micro.ErrorHeader))
		return ""
	}
	replica = msg.Header.Get(headerFrom)
	var number, of int
	if _, err := fmt.Sscanf(msg.Header.Get(headerPart), "%d/%d", &number, &of); err != nil ||
		replica == "" || number < 1 || number > of || of > maxParts {
		return "" // nobody of ours
	}
	if a.parts == nil {
		a.parts = map[string][][]byte{}
	}
	a.parts[replica] = append(a.parts[replica], msg.Data) // in order: one replica sends them, one after another
	if len(a.parts[replica]) < of {
		return ""
	}
	a.answers = append(a.answers, Answer{replica, bytes.Join(a.parts[replica], nil)})
	return replica
}

// asked is a question that came.
type asked struct {
	question Question
	request  micro.Request
}

// answer answers questions until ctx ends.
func (r *Replicas) answer(ctx context.Context) error {
	questions := make(chan asked, maxQuestions)
	service, err := r.serve(questions)
	if err != nil {
		return fmt.Errorf("answer questions: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxQuestions)
	for {
		select {
		case <-ctx.Done():
			_ = service.Stop() // with the connection, if that is closed first
			return errors.Join(ctx.Err(), group.Wait())
		case q := <-questions:
			if !group.TryGo(func() error { r.respond(ctx, q); return nil }) {
				_ = q.request.Error("503", "too many questions at the same time", nil) // the asker has a deadline
			}
		}
	}
}

// serve subscribes to the questions.
func (r *Replicas) serve(questions chan<- asked) (micro.Service, error) {
	service, err := micro.AddService(r.hub.conn, micro.Config{
		Name: serviceName, Version: serviceVersion, QueueGroupDisabled: true,
		Description: "which gateways there are, and which revocations they have",
		Metadata:    map[string]string{metadataReplica: r.cfg.Name},
	})
	if err != nil {
		return nil, err
	}
	for endpoint, question := range r.cfg.Questions {
		handler := r.handler(question, questions)
		err := errors.Join(
			service.AddEndpoint(endpoint, handler, micro.WithEndpointSubject(subjectOfAll(endpoint))),
			service.AddEndpoint(endpoint+"-here", handler, micro.WithEndpointSubject(subjectOfOne(endpoint, r.cfg.Name))))
		if err != nil {
			return nil, errors.Join(err, service.Stop())
		}
	}
	return service, nil
}

// handler hands questions on, but for this replica's own: it answers itself without
// the hub.
func (r *Replicas) handler(question Question, questions chan<- asked) micro.HandlerFunc {
	return func(request micro.Request) {
		if request.Headers().Get(headerFrom) == r.cfg.Name {
			return
		}
		select {
		case questions <- asked{question, request}:
		default:
			_ = request.Error("503", "too many questions at the same time", nil) // the asker has a deadline
		}
	}
}

// respond answers one question, within the asker's deadline.
func (r *Replicas) respond(ctx context.Context, q asked) {
	within := defaultWithin
	if ms, err := strconv.ParseInt(q.request.Headers().Get(headerWithin), 10, 64); err == nil && ms > 0 {
		within = min(maxWithin, time.Duration(ms)*time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	data, err := q.question(ctx, q.request.Data())
	if err != nil {
		_ = q.request.Error("500", err.Error(), nil) // the asker has a deadline
		return
	}
	parts := slices.Collect(slices.Chunk(data, maxPart))
	if len(parts) == 0 {
		parts = [][]byte{nil}
	}
	for i, part := range parts {
		if err := q.request.Respond(part, micro.WithHeaders(micro.Headers{
			headerFrom: {r.cfg.Name}, headerPart: {fmt.Sprintf("%d/%d", i+1, len(parts))},
		})); err != nil {
			return // the hub is away: the asker has a deadline
		}
	}
}
