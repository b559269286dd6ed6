package rig

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
)

func init() { caddy.RegisterModule(door{}) }

// reload makes Caddy load a configuration and waits until the one before takes no more connections: caddy.Load returns as soon as the old
// servers are about to close, and on a busy machine one of them may still answer what a test asks next.
func reload(config []byte) error {
	config, err := watched(config)
	if err != nil {
		return err
	}
	old := openDoors()
	if err := caddy.Load(config, true); err != nil {
		return err
	}
	late := time.After(time.Minute)
	for l := range old {
		select {
		case <-l.ended:
		case <-late:
			return errors.New("the configuration before still takes connections")
		}
	}
	return nil
}

// watched is a configuration with a door for each of its servers.
func watched(config []byte) ([]byte, error) {
	var all map[string]any
	if err := json.Unmarshal(config, &all); err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	apps, _ := all["apps"].(map[string]any)
	http, _ := apps["http"].(map[string]any)
	servers, _ := http["servers"].(map[string]any)
	for _, s := range servers {
		if server, ok := s.(map[string]any); ok {
			wrappers, _ := server["listener_wrappers"].([]any)
			server["listener_wrappers"] = append(wrappers, map[string]any{"wrapper": "rig_door"})
		}
	}
	return json.Marshal(all)
}

// door is a listener wrapper that tells when its server takes no more connections.
type door struct{}

// CaddyModule tells Caddy of it.
func (door) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.listeners.rig_door", New: func() caddy.Module { return new(door) }}
}

// doors are those that are open, in all configurations.
var doors = struct {
	sync.Mutex
	open map[*listener]struct{}
}{open: make(map[*listener]struct{})}

func openDoors() map[*listener]struct{} {
	doors.Lock()
	defer doors.Unlock()
	return maps.Clone(doors.open)
}

// WrapListener watches l.
func (door) WrapListener(l net.Listener) net.Listener {
	w := &listener{Listener: l, ended: make(chan struct{})}
	doors.Lock()
	defer doors.Unlock()
	doors.open[w] = struct{}{}
	return w
}

// listener is one whose end is known: it was closed, and nobody is in Accept, where later calls fail at once.
type listener struct {
	net.Listener
	ended chan struct{}

	mu        sync.Mutex
	accepting int
	closed    bool
	over      bool
}

func (l *listener) Close() error {
	err := l.Listener.Close()
	l.update(func() { l.closed = true })
	return err
}

func (l *listener) Accept() (net.Conn, error) {
	l.update(func() { l.accepting++ })
	defer l.update(func() { l.accepting-- })
	return l.Listener.Accept()
}

func (l *listener) update(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	if !l.closed || l.accepting > 0 || l.over {
		return
	}
	l.over = true
	doors.Lock()
	delete(doors.open, l)
	doors.Unlock()
	close(l.ended)
}
