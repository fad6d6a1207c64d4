package process

import "runtime/debug"

// Version is what the linker or the module system knows of this build.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision := ""
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = "+" + s.Value[:min(len(s.Value), 12)]
		}
	}
	return info.Main.Version + revision
}
