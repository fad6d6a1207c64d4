package strict_test

import (
	"reflect"
	"strings"
	"testing"

	"revocation-adapter/config/strict"
)

// house has a list of sections, which the adapter's configuration has not.
type house struct {
	Name  string `toml:"name"`
	Rooms []room `toml:"room"`
}

type room struct {
	Path   string        `toml:"path"`
	Doors  []string      `toml:"doors"`
	Open   bool          `toml:"open"`
	Locks  []strict.URL  `toml:"locks"`
	Code   strict.Secret `toml:"code"`
	Garden garden        `toml:"garden"`
}

type garden struct {
	Trees int `toml:"trees"`
}

func (h house) Check(f *strict.Faults) {
	for _, r := range h.Rooms {
		strict.AtLeast(f, "room[0].garden.trees", r.Garden.Trees, 0)
	}
}

func (h house) Files() []strict.File { return nil }

func read(text string) (house, error) {
	env := func(name string) (string, bool) { return "hunter2", name == "SECRET" }
	return strict.Read(strings.NewReader(text), env, house{Name: "default", Rooms: []room{{Path: "default"}}})
}

func TestListOfSections(t *testing.T) {
	text := `
[[room]]
path = "/a"
doors = ["x", "$env{SECRET}"]
[room.garden]
trees = 2
[[room]]
open = true
`
	got, err := read(text)
	want := house{Name: "default", Rooms: []room{
		{Path: "/a", Doors: []string{"x", "hunter2"}, Garden: garden{2}},
		{Open: true},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	inline, err := read(`room = [{ path = "/a", doors = ["x", "hunter2"], garden = { trees = 2 } }, { open = true }]`)
	if err != nil || !reflect.DeepEqual(inline, want) {
		t.Errorf("inline: got %+v, %v", inline, err)
	}
	kept, err := read("")
	if err != nil || len(kept.Rooms) != 1 || kept.Rooms[0].Path != "default" {
		t.Errorf("without the key the default stays: %+v, %v", kept, err)
	}
}

func TestListOfSectionsRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"unknown key":           {"[[room]]\npth = \"hunter2\"", "room[0].pth: unknown key\n   2| pth = ********"},
		"unknown in both":       {"[[room]]\npth = 1\n[[room]]\n\npth = 2", "room[0].pth: unknown key\n   2| pth = ********\nroom[1].pth: unknown key\n   5| pth = ********"},
		"unknown in the last":   {"[[room]]\n[[room]]\npth = 2", "room[1].pth: unknown key\n   3| pth = ********"},
		"unknown section":       {"[[room]]\n[room.yard]\na = 1", "room[0].yard: unknown key\n   2| [room.yard]"},
		"unknown inline":        {"room = [{ pth = 1 }]", "room[0].pth: unknown key\n   1| ..."},
		"upper case":            {"[[room]]\nPath = 1", "room[0].Path: unknown key, the name is in lower case: path"},
		"one table":             {"[room]\npath = \"x\"", "room: must be a list of tables, is a table"},
		"a list of texts":       {"room = [\"x\"]", "room[0]: must be a table, is a string"},
		"wrong type":            {"[[room]]\n[[room]]\nopen = 3", "room[1].open: must be true or false, is an integer"},
		"wrong element":         {"[[room]]\ndoors = [1]", "room[0].doors[0]: must be a string, is an integer"},
		"variable not set":      {"[[room]]\npath = \"$env{NONE}\"", "room[0].path: environment variable NONE is not set"},
		"what Check says":       {"[[room]]\ngarden.trees = -1", "room[0].garden.trees: must be at least 0, is -1"},
		"the list stands twice": {"room = []\n[[room]]", "line 2, column 3: key room already exists as a value, but should be an array table"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(tc.text)
			if err == nil || err.Error() != tc.want {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
}

func TestEffectiveMasksListsOfSections(t *testing.T) {
	c := house{Rooms: []room{{Code: "hunter2", Locks: []strict.URL{"tls://hunter2@a"}}}}
	text, err := strict.Effective(c)
	if err != nil || strings.Contains(string(text), "hunter2") {
		t.Errorf("got %s, %v", text, err)
	}
	if c.Rooms[0].Code != "hunter2" || c.Rooms[0].Locks[0] != "tls://hunter2@a" {
		t.Error("showing a configuration has changed it")
	}
	if again, err := read(string(text)); err != nil || len(again.Rooms) != 1 {
		t.Errorf("%v in\n%s", err, text)
	}
}

// FuzzRead: no text stops the reader with a panic, and what it accepts is the same
// when it is shown and read again.
func FuzzRead(f *testing.F) {
	f.Add("name = \"$env{SECRET}\"\n[[room]]\npath = \"a\"\n[room.garden]\ntrees = 1")
	f.Add("room = [{ path = \"a\", locks = [\"tls://u:p@a\"] }, {}]")
	f.Add("[[room]]\npth = 1\n[[room]]\npth = 2\n[[room.garden]]\n[room]")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := read(text)
		if err != nil {
			return
		}
		shown, err := strict.Effective(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := read(string(shown))
		if err != nil {
			t.Fatalf("%v in\n%s", err, shown)
		}
		if twice, err := strict.Effective(again); err != nil || string(twice) != string(shown) {
			t.Errorf("got\n%s\nthen\n%s, %v", shown, twice, err)
		}
	})
}
