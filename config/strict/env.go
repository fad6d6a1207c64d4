package strict

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

const envOpen = "$env{"

// expand replaces every $env{NAME} by the environment's value. Values are not
// expanded again. With any problem it returns text as it was; problems name
// variables, never values.
func expand(text string, env func(string) (string, bool)) (string, []string) {
	var out strings.Builder
	var problems []string
	rest := text
	for {
		before, after, found := strings.Cut(rest, envOpen)
		out.WriteString(before)
		if !found {
			break
		}
		name, tail, closed := strings.Cut(after, "}")
		if !closed || !isVariable(name) {
			return text, append(problems, "has a malformed $env{NAME}")
		}
		value, problem := lookup(name, env)
		if problem != "" {
			problems = append(problems, problem)
		}
		out.WriteString(value)
		rest = tail
	}
	if len(problems) > 0 {
		return text, problems
	}
	if strings.Contains(out.String(), envOpen) {
		return text, []string{"has $env{ in the value of an environment variable"}
	}
	return out.String(), nil
}

func lookup(name string, env func(string) (string, bool)) (value, problem string) {
	value, ok := env(name)
	if !ok {
		return "", fmt.Sprintf("environment variable %s is not set", name)
	}
	if !utf8.ValidString(value) {
		return "", fmt.Sprintf("environment variable %s is not valid UTF-8", name)
	}
	return value, ""
}

// isReference reports whether text is one $env{NAME} and nothing else.
func isReference(text string) bool {
	name, ok := strings.CutPrefix(text, envOpen)
	return ok && isVariable(strings.TrimSuffix(name, "}"))
}

func isVariable(name string) bool {
	for i, c := range name {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
