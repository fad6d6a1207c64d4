// Package bulk revokes or approves the tokens of a file, a line each.
//
// A file is checked whole before anything of it is sent. It is sent in events that
// list many tokens, one after the other, each when the hub has stored the one
// before. What was stored is noted in a state file, so that a run that was
// interrupted goes on where it was. An event that is sent twice has the same id
// both times, and so changes nothing the second time.
//
// Neither the state file nor any error holds a token.
package bulk
