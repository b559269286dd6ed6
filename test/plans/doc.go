// Package plans tests what is sold as a pass: counted, prepaid, free.
package plans
