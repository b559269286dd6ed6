package paywall

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// BeforeHeader gives a writer that calls f once, just before the header of the final answer goes out, and lets everything
// else through as it comes: bodies stream, connections can be taken over.
func BeforeHeader(w http.ResponseWriter, f func(http.Header)) http.ResponseWriter {
	return &headerWriter{ResponseWriter: w, before: func(h http.Header, _ int) { f(h) }}
}

type headerWriter struct {
	http.ResponseWriter
	before func(h http.Header, status int) // nil once it was called
}

func (w *headerWriter) headers(status int) {
	if w.before != nil {
		f := w.before
		w.before = nil
		f(w.Header(), status)
	}
}

// Unwrap lets http.ResponseController reach what this writer does not change.
func (w *headerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *headerWriter) WriteHeader(status int) {
	if !informational(status) {
		w.headers(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

// informational answers precede the final one; a switch of protocols is final.
func informational(status int) bool {
	return status >= 100 && status < 200 && status != http.StatusSwitchingProtocols
}

func (w *headerWriter) Write(b []byte) (int, error) {
	w.headers(http.StatusOK)
	return w.ResponseWriter.Write(b)
}

// ReadFrom keeps the server's fast path for bodies.
func (w *headerWriter) ReadFrom(r io.Reader) (int64, error) {
	w.headers(http.StatusOK)
	return readFrom(w.ResponseWriter, r)
}

func readFrom(w http.ResponseWriter, r io.Reader) (int64, error) {
	if rf, ok := w.(io.ReaderFrom); ok {
		return rf.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{w}, r)
}

// FlushError writes the header by itself, so f must have been called before.
func (w *headerWriter) FlushError() error {
	w.headers(http.StatusOK)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush is FlushError for those who only know http.Flusher.
func (w *headerWriter) Flush() { _ = w.FlushError() }

func (w *headerWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.headers(http.StatusSwitchingProtocols)
	return http.NewResponseController(w.ResponseWriter).Hijack()
}
