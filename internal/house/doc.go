// Package house keeps the repository in order. It has no code for users: the scripts behind the
// Makefile, and the tests that hold the floors, the short list of dependencies and the modules.
package house
