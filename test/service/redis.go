//go:build unix

package service

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// RedisOptions are what StartRedis can do without. The zero value is a server whose every write is on the disk.
type RedisOptions struct {
	// Fsync is when the append-only file is written to the disk: "always" (the default), "everysec" or "no"; with "off" there is no
	// such file.
	Fsync string
	// Settings are further lines of redis.conf: name and what follows it. A name with a space, and a number after it, may
	// stand for another line of the same kind ("user 2").
	Settings map[string]string
	// Certificate and Key, files in PEM, make the server speak TLS, and nothing else.
	Certificate, Key string

	sentinel bool
}

// Redis is a redis-server that runs. Its methods may be called from several goroutines.
type Redis struct {
	dir      string
	port     int
	tls      bool
	sentinel bool

	mu    sync.Mutex
	cmd   *exec.Cmd // nil while it does not run
	ended chan struct{}
	guard *guard
}

const (
	redisPatience = 90 * time.Second
	redisPause    = 10 * time.Millisecond
)

// StartRedis starts a new, empty server; the caller ends it with Stop. Should the caller's process die without doing so, the
// server ends too.
func StartRedis(ctx context.Context, o RedisOptions) (*Redis, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, errors.New("the tests need Redis's program redis-server in the PATH: apt install redis-server")
	}
	dir, err := os.MkdirTemp("", "redis-")
	if err != nil {
		return nil, fmt.Errorf("a folder for Redis: %w", err)
	}
	r := &Redis{dir: dir, tls: o.Certificate != "", sentinel: o.sentinel}
	if err := r.prepare(ctx, o); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := r.Restart(ctx); err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	return r, nil
}

// prepare writes the server's configuration, which the server itself may change.
func (r *Redis) prepare(ctx context.Context, o RedisOptions) error {
	var err error
	if r.port, err = FreePort(ctx); err != nil {
		return err
	}
	lines := []string{
		"bind 127.0.0.1", "daemonize no", "dir " + r.dir, `logfile ""`, "loglevel notice", "databases 16",
	}
	name := "port "
	if r.tls {
		name = "tls-port "
		lines = append(lines, "port 0", "tls-cert-file "+o.Certificate, "tls-key-file "+o.Key, "tls-auth-clients no")
	}
	lines = append(lines, name+strconv.Itoa(r.port))
	if !o.sentinel {
		lines = append(lines, `save ""`, "repl-diskless-sync-delay 0", "tcp-backlog 511")
		switch o.Fsync {
		case "off":
			lines = append(lines, "appendonly no")
		case "":
			lines = append(lines, "appendonly yes", "appendfsync always")
		default:
			lines = append(lines, "appendonly yes", "appendfsync "+o.Fsync)
		}
	}
	if o.Settings["cluster-enabled"] == "yes" {
		bus, err := FreePort(ctx)
		if err != nil {
			return err
		}
		lines = append(lines, "cluster-port "+strconv.Itoa(bus))
	}
	var names []string
	for name := range o.Settings {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		word, _, _ := strings.Cut(name, " ")
		lines = append(lines, word+" "+o.Settings[name])
	}
	return os.WriteFile(r.config(), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

func (r *Redis) config() string { return filepath.Join(r.dir, "redis.conf") }

// Dir is the folder of the server's data.
func (r *Redis) Dir() string { return r.dir }

// Addr is host:port.
func (r *Redis) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port)) }

// URL is how to connect to the server.
func (r *Redis) URL() string {
	if r.tls {
		return "rediss://" + r.Addr()
	}
	return "redis://" + r.Addr()
}

// Restart starts the server with the data that it has, after ending it in good order if it runs. It returns when the server
// answers.
func (r *Redis) Restart(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.end(syscall.SIGTERM); err != nil {
		return err
	}
	log, err := os.OpenFile(r.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{r.config()}
	if r.sentinel {
		args = append(args, "--sentinel")
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "redis-server", args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting Redis: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // how it ended, its log tells
	}()
	r.cmd, r.ended = cmd, ended
	if r.guard, err = newGuard(cmd.Process.Pid); err != nil {
		return errors.Join(err, r.end(syscall.SIGKILL))
	}
	return r.wait(ctx)
}

// wait returns when the server answers.
func (r *Redis) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisPatience)
	defer cancel()
	for {
		err := r.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-r.ended:
			r.cmd = nil
			r.guard.dismiss()
			return fmt.Errorf("Redis ended when it was started:\n%s", r.logTail())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("Redis does not answer: %w\n%s", err, r.logTail()), r.end(syscall.SIGKILL))
		case <-time.After(redisPause):
		}
	}
}

// ping asks whether the server serves; it need not let us in.
func (r *Redis) ping(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", r.Addr())
	if err != nil {
		return err
	}
	if r.tls {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "+PONG") && !strings.HasPrefix(line, "-NOAUTH") && !strings.HasPrefix(line, "-MASTERDOWN") {
		return errors.New(strings.TrimSpace(line))
	}
	return nil
}

func (r *Redis) logPath() string { return filepath.Join(r.dir, "log") }

// Log is what the server has logged.
func (r *Redis) Log() ([]byte, error) { return os.ReadFile(r.logPath()) }

func (r *Redis) logTail() []byte {
	const enough = 4000
	log, err := r.Log()
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.TrimSpace(log[max(0, len(log)-enough):])
}

// Stop ends the server, at once, and removes its data.
func (r *Redis) Stop() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.end(syscall.SIGKILL), os.RemoveAll(r.dir))
}

// Kill ends the server with SIGKILL. Its data stay, for Restart.
func (r *Redis) Kill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end(syscall.SIGKILL)
}

func (r *Redis) end(how syscall.Signal) error {
	if r.cmd == nil {
		return nil
	}
	r.guard.dismiss()
	pid := r.cmd.Process.Pid
	if how != syscall.SIGKILL {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	if err := syscall.Kill(pid, how); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("ending Redis: %w", err)
	}
	select {
	case <-r.ended:
	case <-time.After(redisPatience):
		_ = syscall.Kill(pid, syscall.SIGKILL)
		<-r.ended
	}
	r.cmd = nil
	return nil
}

// Pause stops the server where it is; connections stay, and nobody answers.
func (r *Redis) Pause() error { return r.signal(syscall.SIGSTOP) }

// Continue lets a paused server go on.
func (r *Redis) Continue() error { return r.signal(syscall.SIGCONT) }

func (r *Redis) signal(sig syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd == nil {
		return errors.New("Redis does not run")
	}
	if err := syscall.Kill(r.cmd.Process.Pid, sig); err != nil {
		return fmt.Errorf("signalling Redis: %w", err)
	}
	return nil
}

// Do makes one command, over a connection of its own.
func (r *Redis) Do(ctx context.Context, args ...any) (any, error) {
	c := goredis.NewClient(&goredis.Options{Addr: r.Addr(), MaxRetries: -1, Protocol: 2, DisableIdentity: true})
	got, err := c.Do(ctx, args...).Result()
	return got, errors.Join(err, c.Close())
}

// information is one line of INFO or CLUSTER INFO.
func (r *Redis) information(ctx context.Context, name string, command ...any) (string, error) {
	got, err := r.Do(ctx, command...)
	if err != nil {
		return "", err
	}
	text, _ := got.(string)
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && key == name {
			return value, nil
		}
	}
	return "", nil
}

// until asks again and again until it is true.
func until(ctx context.Context, what string, met func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, redisPatience)
	defer cancel()
	for {
		ok, err := met()
		if ok && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s: not in %v", what, redisPatience), err)
		case <-time.After(redisPause):
		}
	}
}
