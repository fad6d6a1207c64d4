package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net/http"
	"path"
	"time"
)

//go:embed assets
var files embed.FS

// asset is one file of the page.
type asset struct {
	kind string // its media type
	tag  string // changes with the content
	text []byte
}

// mediaType is that of a file of the page.
func mediaType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return "application/octet-stream"
}

func loadAssets() (map[string]asset, error) {
	list, err := files.ReadDir("assets")
	if err != nil {
		return nil, fmt.Errorf("read the page: %w", err)
	}
	all := make(map[string]asset, len(list))
	for _, entry := range list {
		text, err := files.ReadFile("assets/" + entry.Name())
		if err != nil {
			return nil, fmt.Errorf("read the page: %w", err)
		}
		sum := sha256.Sum256(text)
		all[entry.Name()] = asset{mediaType(entry.Name()), `"` + hex.EncodeToString(sum[:8]) + `"`, text}
	}
	return all, nil
}

func (p *Page) index(w http.ResponseWriter, r *http.Request) { p.serve(w, r, "index.html") }

func (p *Page) asset(w http.ResponseWriter, r *http.Request) { p.serve(w, r, r.PathValue("name")) }

// serve has browsers ask each time whether a file has changed: another build of
// the adapter may have other files.
func (p *Page) serve(w http.ResponseWriter, r *http.Request, name string) {
	a, known := p.assets[name]
	if !known {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", a.kind)
	w.Header().Set("ETag", a.tag)
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.text))
}
