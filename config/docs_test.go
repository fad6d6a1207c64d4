package config_test

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"revocation-adapter/config"
)

const (
	document = "../docs/configuration.md"
	example  = "../resources/conf/adapter.toml"
)

func TestDocumentedKeys(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| `([^`]+)` \\| (.+) \\|$")
	defaults := map[string]string{}
	for _, cells := range row.FindAllStringSubmatch(content(t, document), -1) {
		if _, twice := defaults[cells[1]]; twice {
			t.Errorf("%s is documented twice", cells[1])
		}
		defaults[cells[1]] = cells[2]
	}
	compareKeys(t, document, defaults)
	for key, value := range defaults {
		list, field, _ := strings.Cut(key, ".")
		switch list {
		case "clients":
			checkListDefault(t, list, field+" = "+value, `id = "a"`, `secret_hash = "`+someHash+`"`, `roles = ["revoke"]`)
		case "issuers":
			checkListDefault(t, list, field+" = "+value, `name = "a"`, `jwks = ["keys.json"]`)
		default:
			checkDefault(t, key+" = "+value)
		}
	}
}

const someHash = "$2a$04$VBVXvNqEr1mQOkDNRQVDjeHbrTT2MbTHmQ5KzDnhPF6dB5T2bq7dG"

// checkListDefault: an entry with the documented default of a key is one without
// it, faulty or not.
func checkListDefault(t *testing.T, list, setting string, required ...string) {
	t.Helper()
	name, _, _ := strings.Cut(setting, " = ")
	text := "[[" + list + "]]\n"
	for _, line := range required {
		if !strings.HasPrefix(line, name+" = ") {
			text += line + "\n"
		}
	}
	without, err := read(text)
	with, other := read(text + setting + "\n")
	if fmt.Sprint(err) != fmt.Sprint(other) || fmt.Sprintf("%+v", without) != fmt.Sprintf("%+v", with) {
		t.Errorf("%s.%s is not the default: %v, without it %v", list, setting, other, err)
	}
}

// Every section of the documentation holds its own keys, under its own name.
func TestDocumentedSections(t *testing.T) {
	section := ""
	for line := range strings.Lines(content(t, document)) {
		if name, ok := strings.CutPrefix(line, "## ["); ok {
			section = strings.Trim(strings.TrimSpace(name), "[]")
		}
		if key, ok := strings.CutPrefix(line, "| `"); ok {
			key, _, _ = strings.Cut(key, "`")
			if at := strings.LastIndex(key, "."); key[:at] != section {
				t.Errorf("%s stands under %s", key, section)
			}
		}
	}
}

func TestDocumentedErrorsAreReal(t *testing.T) {
	_, err := read(`[hub]
mode = "external"
url = "nats-1"
urls = ["http://nats-1:4222"]
user = "adapter"
password = "$env{HUB_PASSWORD}"
[revocation]
grace = "ten minutes"
[xds]
listen = ":18000"
`)
	_, shown, _ := strings.Cut(content(t, document), "```\nconfiguration adapter.toml:\n")
	shown, _, _ = strings.Cut(shown, "\n```")
	if err == nil || err.Error() != shown {
		t.Errorf("got\n%v\ndocumented\n%s", err, shown)
	}
}

func TestExampleFileIsTheDefault(t *testing.T) {
	text := content(t, example)
	uncommented := regexp.MustCompile(`(?m)^# ([a-z_]+ = )`).ReplaceAllString(text, "$1")
	for name, text := range map[string]string{"as it is": text, "with every key": uncommented} {
		got, err := read(text)
		if err != nil || !reflect.DeepEqual(got, config.Default()) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestExampleFileExplainsEveryKey(t *testing.T) {
	header, setting := regexp.MustCompile(`^\[([a-z_.]+)\]$`), regexp.MustCompile(`^(# )?([a-z_]+) = (.+)$`)
	found, section, before := map[string]string{}, "", ""
	for line := range strings.Lines(content(t, example)) {
		line = strings.TrimSuffix(line, "\n")
		if cells := header.FindStringSubmatch(line); cells != nil {
			section = cells[1]
		}
		if cells := setting.FindStringSubmatch(line); cells != nil {
			found[section+"."+cells[2]] = cells[3]
			if !strings.HasPrefix(before, "# ") || setting.MatchString(before) {
				t.Errorf("%s.%s has no comment above it", section, cells[2])
			}
		}
		before = line
	}
	for _, key := range keys("", reflect.TypeFor[config.Config]()) {
		if list, field, _ := strings.Cut(key, "."); list == "clients" || list == "issuers" {
			if strings.Contains(content(t, example), "\n#   "+field+" = ") {
				found[key] = "shown as an example"
			}
		}
	}
	compareKeys(t, example, found)
}

// What the file shows of lists is read as it stands.
func TestExampleEntriesAreRead(t *testing.T) {
	text := regexp.MustCompile(`(?m)^#   `).ReplaceAllString(content(t, example), "")
	got, err := read(text)
	if err != nil || len(got.Clients) != 1 || len(got.Issuers) != 1 {
		t.Errorf("%v: %+v %+v", err, got.Clients, got.Issuers)
	}
}

func compareKeys(t *testing.T, file string, found map[string]string) {
	t.Helper()
	known := map[string]bool{}
	for _, key := range keys("", reflect.TypeFor[config.Config]()) {
		known[key] = true
		if _, ok := found[key]; !ok {
			t.Errorf("%s does not have %s", file, key)
		}
	}
	for key := range found {
		if !known[key] {
			t.Errorf("%s has %s, which does not exist", file, key)
		}
	}
}

// checkDefault: a key with its documented default changes nothing.
func checkDefault(t *testing.T, setting string) {
	t.Helper()
	got, err := read(setting)
	if err != nil || !reflect.DeepEqual(got, config.Default()) {
		t.Errorf("%s is not the default: %v", setting, err)
	}
}

func keys(prefix string, section reflect.Type) []string {
	var all []string
	for i := range section.NumField() {
		field := section.Field(i)
		key := prefix + field.Tag.Get("toml")
		switch {
		case field.Type.Kind() == reflect.Struct:
			all = append(all, keys(key+".", field.Type)...)
		case field.Type.Kind() == reflect.Slice && field.Type.Elem().Kind() == reflect.Struct:
			all = append(all, keys(key+".", field.Type.Elem())...)
		default:
			all = append(all, key)
		}
	}
	return all
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The file for a WSO2 API Manager is one that the adapter reads.
func TestWSO2FileIsRead(t *testing.T) {
	got, err := read(content(t, "../resources/conf/wso2.toml"),
		"APIM_USER", "admin", "APIM_PASSWORD", "p%2Fw", "NOTIFY_PASSWORD", "hunter2")
	if err != nil {
		t.Fatal(err)
	}
	brokers, err := got.AMQP.Brokers[0].Brokers()
	if err != nil || len(brokers) != 2 || brokers[1].Address != "apim-2.example.com:5671" || brokers[1].Password != "p/w" {
		t.Errorf("got %v, %v", brokers, err)
	}
}
