package jwks

import "time"

// WaitLonger has calls wait longer for keys: a busy machine is slow to read them.
func (k *Keys) WaitLonger() { k.wait = 10 * time.Second }
