package control

import (
	"bufio"
	"encoding/json"
	"net/http"

	"revocation-adapter/config/basicauth"
	"revocation-adapter/enforcer"
	"revocation-adapter/revocation"
)

// listed is one token, as operators of Choreo Connect know it.
type listed struct {
	JTI    string `json:"jti"`
	Expiry int64  `json:"expiryTime"` // milliseconds since the epoch
}

// found is what is known of one token.
type found struct {
	Revoked bool   `json:"revoked"`
	Expired bool   `json:"expired,omitempty"`
	Rule    string `json:"rule,omitempty"` // the claim of the rule that revokes it
	Version uint64 `json:"version"`
	Stale   bool   `json:"stale"` // the set is too old to tell that a token is not revoked
}

// maxQuestion bounds a form, in bytes: it holds one token.
const maxQuestion = 128 << 10

// guarded answers who knows the credentials: GET, or POST with the token in a form,
// which no log of addresses keeps.
func (s *Server) guarded(guard *basicauth.Guard) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !guard.Admits(w, r) {
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxQuestion)
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodPost:
			w.Header().Set("Allow", "GET, POST")
			s.tell(w, http.StatusMethodNotAllowed, map[string]string{"error": "GET or POST"})
		case r.ParseForm() != nil:
			s.tell(w, http.StatusBadRequest, map[string]string{"error": "the form cannot be read"})
		case s.cfg.NotReady() != "":
			s.tell(w, http.StatusServiceUnavailable, map[string]string{"error": s.cfg.NotReady()})
		case r.Form.Has("token"):
			s.tell(w, http.StatusOK, s.find(r.Form.Get("token")))
		case r.Method == http.MethodPost:
			s.tell(w, http.StatusBadRequest, map[string]string{"error": "token is missing"})
		default:
			s.list(w)
		}
	}
}

// find says what is known of a whole token, of a jti or of an opaque token. What
// is no JWT is looked up as either of the last two.
func (s *Server) find(text string) found {
	token, err := enforcer.ParseToken(text)
	if err != nil {
		token = enforcer.Token{Opaque: text, Expiry: revocation.Never}
	}
	return foundOf(s.cfg.Set.Check(token))
}

func foundOf(d enforcer.Decision) found {
	return found{
		Revoked: d.Verdict == enforcer.Revoked, Expired: d.Verdict == enforcer.Expired,
		Rule: d.Rule, Version: d.Version, Stale: d.Stale,
	}
}

// list writes one token after another, whatever their number. The count comes
// last: an answer without it was cut off.
func (s *Server) list(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	out := bufio.NewWriterSize(w, 32<<10)
	if err := s.write(out); err != nil {
		s.cfg.Log.WithError(err).Debug("A list of tokens could not be sent")
	}
}

func (s *Server) write(out *bufio.Writer) error {
	encoder, count, comma := json.NewEncoder(out), 0, ""
	if _, err := out.WriteString(`{"tokens":[`); err != nil {
		return err
	}
	for token := range s.cfg.Set.Revoked() {
		if _, err := out.WriteString(comma); err != nil {
			return err
		}
		if err := encoder.Encode(listed{token.Name(), token.Expiry}); err != nil {
			return err
		}
		count, comma = count+1, ","
	}
	if _, err := out.WriteString(`],"count":`); err != nil {
		return err
	}
	if err := encoder.Encode(count); err != nil {
		return err
	}
	if _, err := out.WriteString("}\n"); err != nil {
		return err
	}
	return out.Flush()
}
