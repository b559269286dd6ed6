// Package xcaddy tests that what xcaddy builds works: a main of three imports, without cgo.
package xcaddy
