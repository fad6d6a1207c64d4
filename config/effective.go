package config

import "revocation-adapter/config/strict"

// Effective is the configuration as TOML with secrets masked. Read accepts it.
func (c Config) Effective() ([]byte, error) { return strict.Effective(c) }
