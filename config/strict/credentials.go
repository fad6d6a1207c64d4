package strict

import "golang.org/x/crypto/bcrypt"

// Credentials are those of whoever may use an endpoint; without Username it does
// not exist.
type Credentials struct{ Username, Password, PasswordHash string }

// Credentials refuses those that are not whole, or say one thing twice.
func (f *Faults) Credentials(section string, c Credentials) {
	switch {
	case c.Username == "" && c.Password != "":
		f.Add(section+".password", "needs "+section+".username")
	case c.Username == "" && c.PasswordHash != "":
		f.Add(section+".password_hash", "needs "+section+".username")
	case c.Username == "":
	case c.Password == "" && c.PasswordHash == "":
		f.Add(section+".username", "needs "+section+".password or "+section+".password_hash")
	case c.Password != "" && c.PasswordHash != "":
		f.Add(section+".password_hash", "cannot be combined with "+section+".password")
	}
	f.Bcrypt(section+".password_hash", c.PasswordHash)
}

// Bcrypt refuses a hash that is none. An empty one, or one that is masked, as
// Effective shows it, is accepted.
func (f *Faults) Bcrypt(key, hash string) {
	if hash == "" || hash == Mask {
		return
	}
	if _, err := bcrypt.Cost([]byte(hash)); err != nil {
		f.Add(key, "must be bcrypt of the password, such as htpasswd -B prints")
	}
}
