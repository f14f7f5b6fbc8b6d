package shopifytest

import (
	"maps"
	"slices"
)

// Supported are the fields that the fake answers, by type.
func Supported() map[string][]string {
	all := map[string][]string{}
	for name, k := range kinds() {
		all[name] = slices.Sorted(maps.Keys(k.plain))
		for f := range k.computed {
			if !slices.Contains(all[name], f) {
				all[name] = append(all[name], f)
			}
		}
	}
	return all
}

// Mutations are those that the fake makes.
func Mutations() []string { return slices.Sorted(maps.Keys(mutations())) }
