package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// completeInBash presses the tab key: it loads the script, and has bash's function
// complete the last word. What the package bash-completion does to the words is done
// here.
const completeInBash = `
_get_comp_words_by_ref() { words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; cur="${COMP_WORDS[COMP_CWORD]}"; prev="${COMP_WORDS[COMP_CWORD-1]}"; }
compopt() { :; }
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9
__start_adapter
printf '%s\n' "${COMPREPLY[@]}"
`

// complete returns what bash offers in place of the last word.
func (a *adapter) complete(t *testing.T, script string, words ...string) string {
	t.Helper()
	args := append([]string{"-c", completeInBash, "bash", script, "adapter", "--config", a.config}, words...)
	cmd := exec.CommandContext(t.Context(), "bash", args...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("complete %q: %v: %s", words, err, out)
	}
	var offered []string
	for line := range strings.Lines(string(out)) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		offered = append(offered, word)
	}
	return strings.Join(offered, " ")
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	a, script := startAdapter(t), filepath.Join(t.TempDir(), "adapter.bash")
	code, text, stderr := a.run(t, "completion", "bash")
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "bash", "-n", script).CombinedOutput(); err != nil {
		t.Fatalf("bash -n: %v: %s", err, out)
	}
	var letters []string
	for range 2 {
		a.publish(t, `{"type":"JWT"}`)
	}
	eventually(t, "there are dead letters", func() bool { return a.metric(t, "revocation_adapter_dead_letters") == 2 })
	_, list, _ := a.run(t, "deadletter", "list")
	for line := range strings.Lines(list) {
		if number := strings.Fields(line)[0]; number != "NUMBER" {
			letters = append(letters, number)
		}
	}
	for _, tt := range []struct {
		words []string
		want  string
	}{
		{[]string{"revoke", "--type", ""}, "JWT API_KEY Default"},
		{[]string{"approve", "--type", "A"}, "API_KEY"},
		{[]string{"watch", "--protocol", ""}, "rtds sotw delta"},
		{[]string{"client", "add", "--role", "revoke"}, "revoke revoke_any"},
		{[]string{"revoke", "--expires-at", "n"}, "never"},
		{[]string{"revoke", "--claim", "a"}, "azp="},
		{[]string{"deadletter", ""}, "list purge replay show"},
		{[]string{"deadletter", "replay", ""}, strings.Join(letters, " ")},
		{[]string{"deadletter", "replay", letters[0], ""}, letters[1]},
		{[]string{"deadletter", "show", letters[0], ""}, ""},
		{[]string{"revoke", ""}, ""},
	} {
		if got := a.complete(t, script, tt.words...); got != tt.want {
			t.Errorf("%s: offered %q, want %q", fmt.Sprint(tt.words), got, tt.want)
		}
	}
	stopped := newAdapter(t, nil)
	if got := stopped.complete(t, script, "deadletter", "show", ""); got != "" {
		t.Errorf("without a hub: offered %q", got)
	}
}
