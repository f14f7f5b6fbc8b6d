// Package integration holds the suites that need heavy drivers or servers: SQL databases, brokers,
// proxies, histories. The first comes with the first engine that needs one.
package integration
