// Package service starts the real services that tests and the chaos program need, on free ports of the loopback
// interface and with data in temporary folders: PostgreSQL, and Redis as a single server, behind Sentinel and as a Cluster.
// They can be killed, stopped in their tracks and started again with their data. A service whose programs are not installed is
// an error that says what to install.
package service
