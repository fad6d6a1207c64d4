package config

import (
	"fmt"

	"github.com/pelletier/go-toml/v2"
)

// Effective is the configuration as TOML with secrets masked. Read accepts it.
func (c Config) Effective() ([]byte, error) {
	// go-toml asks no string for its MarshalText, so secrets are masked here.
	for _, secret := range []*Secret{&c.Hub.Password, &c.ControlPlane.Password, &c.Notify.Password, &c.Notify.PasswordHash} {
		*secret = Secret(secret.String())
	}
	c.Hub.URLs = masked(c.Hub.URLs, URL.String)
	c.AMQP.Brokers = masked(c.AMQP.Brokers, URL.maskedBrokers)
	c.ControlPlane.URL = URL(c.ControlPlane.URL.String())
	text, err := toml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	return text, nil
}

func masked(urls []URL, show func(URL) string) []URL {
	shown := make([]URL, len(urls))
	for i, u := range urls {
		shown[i] = URL(show(u))
	}
	return shown
}
