package config_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"revocation-adapter/enforcer/cmd/config"
)

const (
	document = "../../../docs/enforcer.md"
	example  = "../../../resources/conf/enforcer.toml"
)

func TestDocumentedKeys(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| `([^`]+)` \\| (.+) \\|$")
	reference := reference(t)
	defaults := map[string]string{}
	for _, cells := range row.FindAllStringSubmatch(reference, -1) {
		if _, twice := defaults[cells[1]]; twice {
			t.Errorf("%s is documented twice", cells[1])
		}
		defaults[cells[1]] = cells[2]
	}
	compareKeys(t, document, defaults)
	for key, value := range defaults {
		if list, field, in := strings.Cut(key, "."); in && list == "one_time" {
			checkDefault(t, key, "one_time", field, value)
			continue
		}
		got, err := read(key + " = " + value)
		if err != nil || !same(got, config.Default()) {
			t.Errorf("%s is not the default of %s: %v", value, key, err)
		}
	}
}

// reference is the part of the document that is about the configuration.
func reference(t *testing.T) string {
	t.Helper()
	_, text, _ := strings.Cut(content(t, document), "\n## Configuration\n")
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// checkDefault: a route with the documented default of a key is one without it.
func checkDefault(t *testing.T, key, list, field, value string) {
	t.Helper()
	var routes struct {
		Plain, Named config.Config
	}
	base := map[string]string{"path": `"/a"`, "scope": `"a"`}
	delete(base, field)
	text := "[[" + list + "]]\n"
	for name, value := range base {
		text += name + " = " + value + "\n"
	}
	var errPlain, errNamed error
	routes.Plain, errPlain = read(text)
	routes.Named, errNamed = read(text + field + " = " + value + "\n")
	if (errPlain == nil) != (errNamed == nil) || errPlain != nil && errPlain.Error() != errNamed.Error() || !same(routes.Plain, routes.Named) {
		t.Errorf("%s is not the default of %s: %v, %v", value, key, errPlain, errNamed)
	}
}

// same compares what two configurations say: an empty list is as good as none.
func same(a, b config.Config) bool {
	one, errOne := a.Effective()
	two, errTwo := b.Effective()
	return errOne == nil && errTwo == nil && string(one) == string(two)
}

// Every section of the documentation holds its own keys, under its own name.
func TestDocumentedSections(t *testing.T) {
	section := ""
	for line := range strings.Lines(reference(t)) {
		if name, ok := strings.CutPrefix(line, "### ["); ok {
			section = strings.Trim(strings.TrimSpace(name), "[]")
		}
		if key, ok := strings.CutPrefix(line, "| `"); ok {
			key, _, _ = strings.Cut(key, "`")
			if at := strings.LastIndex(key, "."); at < 0 || key[:at] != section {
				t.Errorf("%s stands under %s", key, section)
			}
		}
	}
}

func TestExampleFileIsTheDefault(t *testing.T) {
	text := content(t, example)
	uncommented := regexp.MustCompile(`(?m)^# ([a-z_]+ = (""|\[\]))$`).ReplaceAllString(text, "$1")
	route := regexp.MustCompile(`(?m)^# (\[\[one_time\]\]|(path|methods|scope) = .+)$`).ReplaceAllString(text, "$1")
	for name, text := range map[string]string{"as it is": text, "with every key": uncommented} {
		if got, err := read(text); err != nil || !same(got, config.Default()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	got, err := read(route)
	want := []config.OneTime{{Path: "/payments/*", Methods: []string{"POST"}, Scope: "OTT"}}
	if err != nil || !reflect.DeepEqual(got.OneTime, want) {
		t.Errorf("with its route: %+v, %v", got.OneTime, err)
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
		if cells := setting.FindStringSubmatch(line); cells != nil && cells[1] == "" || cells != nil && strings.HasSuffix(line, `""`) || strings.HasSuffix(line, "= []") {
			found[section+"."+cells[2]] = cells[3]
			if !strings.HasPrefix(before, "# ") || setting.MatchString(before) {
				t.Errorf("%s.%s has no comment above it", section, cells[2])
			}
		}
		before = line
	}
	for _, field := range []string{"path", "methods", "scope", "all"} {
		found["one_time."+field] = "shown as an example"
	}
	compareKeys(t, example, found)
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

func keys(prefix string, section reflect.Type) []string {
	var all []string
	for i := range section.NumField() {
		field := section.Field(i)
		key, shape := prefix+field.Tag.Get("toml"), field.Type
		if shape.Kind() == reflect.Slice {
			shape = shape.Elem()
		}
		if shape.Kind() == reflect.Struct {
			all = append(all, keys(key+".", shape)...)
		} else {
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
