// Package integration holds the suites that need heavy drivers or servers: SQL databases, brokers,
// proxies, histories.
package integration
