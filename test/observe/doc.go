// Package observe tests, through the front door, what an operator sees from outside: alerts that fire, traces, and logs that name payments.
package observe
