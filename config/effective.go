package config

import (
	"fmt"

	"github.com/pelletier/go-toml/v2"
)

// Effective is the configuration as TOML with secrets masked. Read accepts it.
func (c Config) Effective() ([]byte, error) {
	// go-toml asks no string for its MarshalText, so secrets are masked here.
	c.Hub.Password = Secret(c.Hub.Password.String())
	urls := make([]URL, len(c.Hub.URLs))
	for i, u := range c.Hub.URLs {
		urls[i] = URL(u.String())
	}
	c.Hub.URLs = urls
	text, err := toml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	return text, nil
}
