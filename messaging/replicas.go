package messaging

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// PresenceBucket is where replicas and their gateways are known by.
const PresenceBucket = "GATEWAYS"

// ErrPresence means that it is not known yet which replicas there are.
var ErrPresence = errors.New("it is not known yet which replicas there are")

// Question answers one that a replica or the command line asks. The asker's
// deadline is that of ctx.
type Question func(ctx context.Context, data []byte) ([]byte, error)

// ReplicasConfig says what is told to the other replicas.
type ReplicasConfig struct {
	Name   string        // of this replica, as ReplicaName makes one
	Memory time.Duration // how long a gateway is known after it was seen last

	// Present are the gateways that hold a stream here: JSON, by name. It is called
	// every 200 ms, and what it returned is not changed afterwards. Who comes and goes
	// between two calls is not remembered.
	Present func() map[string][]byte
	// Questions are those that are answered, by endpoint.
	Questions map[string]Question

	Log logrus.FieldLogger
}

// Seen is a gateway that some replica has, or had within memory.
type Seen struct {
	Replica string // that had it last
	Data    []byte // as Present gave it
	Left    bool   // it left that replica, which said so
}

// Replicas makes this replica and its gateways known to the others, knows theirs,
// and asks them.
type Replicas struct {
	hub *Hub
	cfg ReplicasConfig

	loaded chan struct{} // closed once what was known before is read

	mu       sync.Mutex
	replicas map[string]heard // by name, gone ones too
	gateways map[string]seen  // by name
}

// heard is when a replica was heard last, and whether it said goodbye.
type heard struct {
	at   time.Time
	gone bool
}

// seen is a gateway, and when that was heard.
type seen struct {
	Seen
	at time.Time
}

// How often a replica says that it is there, after how much silence it is taken
// for gone, and how often it looks at its gateways.
const (
	beatEvery    = 2 * time.Second
	silentAfter  = 10 * time.Second
	presentEvery = 200 * time.Millisecond
)

// ReplicaName is one for a process: the host's, and what tells it from all others.
func ReplicaName() (string, error) {
	suffix := make([]byte, 4)
	if _, err := rand.Read(suffix); err != nil {
		return "", err
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("name of the host: %w", err)
	}
	return plain(host) + "-" + hex.EncodeToString(suffix), nil
}

// plain leaves what may stand in a key.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, name)
}

// NewReplicas checks the configuration and starts nothing.
func NewReplicas(hub *Hub, cfg ReplicasConfig) (*Replicas, error) {
	switch {
	case hub == nil || cfg.Present == nil || cfg.Log == nil:
		return nil, fmt.Errorf("%w: replicas need a hub, Present and Log", ErrConfig)
	case cfg.Name == "" || cfg.Name != plain(cfg.Name):
		return nil, fmt.Errorf("%w: a replica is named by letters, digits, - and _, not %q", ErrConfig, cfg.Name)
	case cfg.Memory < time.Second:
		return nil, fmt.Errorf("%w: memory of gateways must be at least 1s, is %s", ErrConfig, cfg.Memory)
	}
	return &Replicas{
		hub: hub, cfg: cfg, loaded: make(chan struct{}),
		replicas: map[string]heard{}, gateways: map[string]seen{},
	}, nil
}

// Run keeps presence and answers questions until ctx ends. It is run once.
func (r *Replicas) Run(ctx context.Context) error {
	bucket, err := r.openBucket(ctx)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.answer(ctx) })
	group.Go(func() error { return r.watch(ctx, bucket) })
	group.Go(func() error { return r.announce(ctx, bucket) })
	return group.Wait()
}

// Name is that of this replica.
func (r *Replicas) Name() string { return r.cfg.Name }

// Known are the replicas that are there, this one included, by name.
func (r *Replicas) Known() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := []string{r.cfg.Name}
	for name, replica := range r.replicas {
		if name != r.cfg.Name && !r.lost(replica) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// lost says whether a replica is gone: it said so, or this one was heard long
// after it. While not even that is heard, the hub is away and nobody is gone.
// Under mu.
func (r *Replicas) lost(replica heard) bool {
	return replica.gone || r.replicas[r.cfg.Name].at.Sub(replica.at) > silentAfter
}

// Gateways are those that were seen by any replica within memory, by name.
func (r *Replicas) Gateways() map[string]Seen {
	r.prune(time.Now())
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]Seen, len(r.gateways))
	for name, g := range r.gateways {
		all[name] = g.Seen
	}
	return all
}

// prune forgets gateways.
func (r *Replicas) prune(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.gateways, func(_ string, g seen) bool { return r.forgotten(g, now) })
}

// forgotten says whether a gateway left, or its replica is gone, longer than memory
// ago. Under mu.
func (r *Replicas) forgotten(g seen, now time.Time) bool {
	if g.Left {
		return now.Sub(g.at) > r.cfg.Memory
	}
	replica, known := r.replicas[g.Replica]
	if known && !r.lost(replica) {
		return false
	}
	return now.Sub(g.at) > r.cfg.Memory && now.Sub(replica.at) > r.cfg.Memory
}

// openBucket opens the bucket of presence, and gives it this replica's memory: it
// holds nothing that must not be forgotten.
func (r *Replicas) openBucket(ctx context.Context) (jetstream.KeyValue, error) {
	copies := 1
	if r.hub.server == nil {
		copies = r.hub.cfg.External.Replicas
	}
	want := jetstream.KeyValueConfig{
		Bucket: PresenceBucket, Description: "replicas of the revocation adapter and their gateways",
		TTL: 2 * r.cfg.Memory, MaxBytes: maxPresence, History: 1, Replicas: copies,
	}
	failing := rate.Sometimes{First: 1, Interval: time.Minute}
	for {
		bucket, err := r.tryBucket(ctx, want)
		if err == nil {
			return bucket, nil
		}
		failing.Do(func() {
			r.cfg.Log.WithError(err).WithField("bucket", PresenceBucket).Warn("The presence of gateways cannot be kept, trying again")
		})
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// maxPresence bounds the bucket, in bytes: some 100,000 gateways.
const maxPresence = 64 << 20

func (r *Replicas) tryBucket(ctx context.Context, want jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	bucket, err := r.hub.js.KeyValue(ctx, PresenceBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		if bucket, err = r.hub.js.CreateKeyValue(ctx, want); !errors.Is(err, jetstream.ErrBucketExists) {
			return bucket, err
		}
		bucket, err = r.hub.js.KeyValue(ctx, PresenceBucket) // another replica was first
	}
	if err != nil {
		return nil, err
	}
	status, err := bucket.Status(ctx)
	if err != nil || status.TTL() == want.TTL {
		return bucket, err
	}
	return r.hub.js.UpdateKeyValue(ctx, want)
}

// presence is what the bucket holds of a replica, or of a gateway.
type presence struct {
	Replica string          `json:"replica"`
	Gateway string          `json:"gateway,omitempty"`
	Left    bool            `json:"left,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
}

const (
	replicaKeys = "replica."
	gatewayKeys = "gateway."
)

// watch follows the bucket.
func (r *Replicas) watch(ctx context.Context, bucket jetstream.KeyValue) error {
	for {
		watcher, err := bucket.WatchAll(ctx)
		if err == nil {
			err = r.follow(ctx, watcher)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.cfg.Log.WithError(err).Warn("The presence of replicas cannot be followed, trying again")
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

var errWatchEnded = errors.New("the watch has ended")

func (r *Replicas) follow(ctx context.Context, watcher jetstream.KeyWatcher) error {
	defer watcher.Stop() //nolint:errcheck // it ends with ctx, or has ended
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case entry, open := <-watcher.Updates():
			switch {
			case !open:
				return errWatchEnded
			case entry != nil:
				r.hear(entry)
			default:
				r.known()
			}
		}
	}
}

// known notes that what was known before is read.
func (r *Replicas) known() {
	select {
	case <-r.loaded:
	default:
		close(r.loaded)
	}
}

// hear takes what the bucket says. A replica that is known from before may be gone
// already: for a while it is believed to be there.
func (r *Replicas) hear(entry jetstream.KeyValueEntry) {
	var p presence
	removed := entry.Operation() != jetstream.KeyValuePut
	if !removed && json.Unmarshal(entry.Value(), &p) != nil {
		return // of a newer adapter
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	name, ofReplica := strings.CutPrefix(entry.Key(), replicaKeys)
	switch {
	case ofReplica:
		r.replicas[name] = heard{time.Now(), removed}
	case !removed && p.Gateway != "":
		at := time.Now()
		if created := entry.Created(); created.Before(at) {
			at = created
		}
		r.gateways[p.Gateway] = seen{Seen{p.Replica, p.Data, p.Left}, at}
	}
	if len(r.replicas) > maxReplicas {
		r.forget()
	}
}

// maxReplicas is how many are remembered that may be gone.
const maxReplicas = 1000

// forget drops the replica that was heard longest ago. Under mu.
func (r *Replicas) forget() {
	oldest := ""
	for name, replica := range r.replicas {
		if name != r.cfg.Name && (oldest == "" || replica.at.Before(r.replicas[oldest].at)) {
			oldest = name
		}
	}
	delete(r.replicas, oldest)
}

// byName is for answers, whose order means nothing.
func byName(a, b Answer) int { return cmp.Compare(a.Replica, b.Replica) }
