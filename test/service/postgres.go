//go:build unix

package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresOptions are what StartPostgres can do without. The zero value is good.
type PostgresOptions struct {
	// NoSync leaves the disk's syncs out: much faster. What was committed survives the death of the processes even so, but not
	// that of the machine.
	NoSync bool
	// Settings are further settings of the server, by name.
	Settings map[string]string
}

// Postgres is a PostgreSQL server that runs. Its methods may be called from several goroutines.
type Postgres struct {
	dir  string
	bin  string
	port int
	args []string
	as   *syscall.Credential // nil: ourselves

	mu    sync.Mutex
	cmd   *exec.Cmd // nil while it does not run
	ended chan struct{}
	guard *guard

	names sync.Mutex
	count int
}

const (
	postgresUser     = "postgres"
	postgresPassword = "a password of tests"

	// postgresPatience is how long a server may take to start, or to stop.
	postgresPatience = 60 * time.Second
	postgresPause    = 20 * time.Millisecond
)

// StartPostgres makes a new, empty server and starts it; the caller ends it with Stop. Should the caller's process die without
// doing so, the server ends too.
func StartPostgres(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "postgres-")
	if err != nil {
		return nil, fmt.Errorf("a folder for PostgreSQL: %w", err)
	}
	p := &Postgres{dir: dir, bin: bin, args: postgresArgs(o)}
	if err := p.prepare(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := p.Restart(ctx); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// postgresBin finds the programs of the newest PostgreSQL that is installed. Debian keeps them out of the PATH.
func postgresBin() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	major := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		return n
	}
	slices.SortFunc(found, func(a, b string) int { return major(a) - major(b) })
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1]), nil
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	return "", errors.New("the tests need PostgreSQL's programs (initdb, postgres), in /usr/lib/postgresql/*/bin or the PATH: apt install postgresql")
}

func postgresArgs(o PostgresOptions) []string {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "",
		"max_connections":         "300",
		"shared_buffers":          "128MB",
		"max_wal_size":            "4GB",
		"log_min_messages":        "warning",
		"log_line_prefix":         "%m [%p] %d ",
	}
	if o.NoSync {
		settings["fsync"], settings["full_page_writes"] = "off", "off"
	}
	maps.Copy(settings, o.Settings)
	var args []string
	for name, value := range settings {
		args = append(args, "-c", name+"="+value)
	}
	return args
}

// prepare makes the data folder. PostgreSQL refuses to run as root: then another user does it, who owns the folder.
func (p *Postgres) prepare(ctx context.Context) error {
	if os.Geteuid() == 0 {
		if err := p.demote(); err != nil {
			return err
		}
	}
	secret := filepath.Join(p.dir, "password")
	if err := os.WriteFile(secret, []byte(postgresPassword+"\n"), 0o600); err != nil {
		return err
	}
	for _, path := range []string{p.dir, secret} {
		if p.as != nil {
			if err := os.Chown(path, int(p.as.Uid), int(p.as.Gid)); err != nil {
				return err
			}
		}
	}
	cmd := p.command(ctx, "initdb", "--pgdata", p.data(), "--username", postgresUser, "--pwfile", secret,
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	var err error
	p.port, err = FreePort(ctx)
	return err
}

func (p *Postgres) demote() error {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		if uerr == nil && gerr == nil {
			p.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
			return nil
		}
	}
	return errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody")
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

func (p *Postgres) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, program), args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.as}
	return cmd
}

// Restart starts the server with the data that it has, after ending it in good order if it runs. It returns when the
// server takes connections.
func (p *Postgres) Restart(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.end(syscall.SIGINT); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, postgresPatience)
	defer cancel()
	for {
		again, err := p.start(ctx)
		if err == nil || !again || ctx.Err() != nil {
			return err
		}
		// What was killed may still be about to leave its port, or its shared memory.
		if !pausePostgres(ctx) {
			return err
		}
	}
}

func pausePostgres(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(postgresPause):
		return true
	}
}

func (p *Postgres) start(ctx context.Context) (again bool, err error) {
	log, err := os.OpenFile(p.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return false, err
	}
	defer log.Close()
	args := append([]string{"-D", p.data(), "-p", strconv.Itoa(p.port)}, p.args...)
	cmd := p.command(context.WithoutCancel(ctx), "postgres", args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // how it ended, its log tells
	}()
	p.cmd, p.ended = cmd, ended
	if p.guard, err = newGuard(cmd.Process.Pid); err != nil {
		return false, errors.Join(err, p.end(syscall.SIGKILL))
	}
	for {
		err := p.answers(ctx)
		if err == nil {
			return false, nil
		}
		select {
		case <-ended:
			p.cmd = nil
			p.guard.dismiss()
			return true, fmt.Errorf("PostgreSQL ended when it was started:\n%s", p.logTail())
		default:
		}
		if !pausePostgres(ctx) {
			return false, errors.Join(fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, p.logTail()), p.end(syscall.SIGKILL))
		}
	}
}

func (p *Postgres) answers(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

func (p *Postgres) logPath() string { return filepath.Join(p.dir, "log") }

// Log is what the server has logged.
func (p *Postgres) Log() ([]byte, error) { return os.ReadFile(p.logPath()) }

func (p *Postgres) logTail() []byte {
	const enough = 4000
	log, err := p.Log()
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.TrimSpace(log[max(0, len(log)-enough):])
}

// Stop ends the server, at once, and removes its data.
func (p *Postgres) Stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(p.end(syscall.SIGQUIT), os.RemoveAll(p.dir))
}

// Kill ends all of the server's processes with SIGKILL: none can write another byte, or say good-bye. Its data stay, for
// Restart.
func (p *Postgres) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end(syscall.SIGKILL)
}

// end ends the server if it runs. Each of PostgreSQL's processes is a group of its own, so a signal to the first one's
// group would reach just that.
func (p *Postgres) end(how syscall.Signal) error {
	if p.cmd == nil {
		return nil
	}
	p.guard.dismiss()
	pid := p.cmd.Process.Pid
	if how == syscall.SIGKILL {
		if err := p.signalAll(syscall.SIGSTOP, syscall.SIGKILL); err != nil {
			return err
		}
	} else {
		_ = syscall.Kill(pid, syscall.SIGCONT)
		if err := syscall.Kill(pid, how); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("ending PostgreSQL: %w", err)
		}
	}
	select {
	case <-p.ended:
		p.cmd = nil
		return nil
	case <-time.After(postgresPatience):
		return errors.Join(fmt.Errorf("PostgreSQL did not end for %v:\n%s", postgresPatience, p.logTail()), p.signalAll(syscall.SIGSTOP, syscall.SIGKILL))
	}
}

// Pause stops all of the server's processes where they are; connections stay, and nobody answers.
func (p *Postgres) Pause() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return errors.New("PostgreSQL does not run")
	}
	return p.signalAll(syscall.SIGSTOP, syscall.SIGSTOP)
}

// Continue lets a paused server go on.
func (p *Postgres) Continue() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return errors.New("PostgreSQL does not run")
	}
	return p.signalAll(syscall.SIGCONT, syscall.SIGCONT)
}

// signalAll sends first to the process that starts the others, so that it starts no more, and then to all.
func (p *Postgres) signalAll(first, all syscall.Signal) error {
	pid := p.cmd.Process.Pid
	if err := syscall.Kill(pid, first); err != nil {
		if errors.Is(err, syscall.ESRCH) {
			return nil
		}
		return fmt.Errorf("signalling PostgreSQL: %w", err)
	}
	children, err := childrenOf(pid)
	if err != nil {
		return err
	}
	for _, id := range append(children, pid) {
		if err := syscall.Kill(id, all); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signalling PostgreSQL: %w", err)
		}
	}
	return nil
}

// Port is the server's.
func (p *Postgres) Port() int { return p.port }

// URL is how to connect to a database as the superuser.
func (p *Postgres) URL(database string) string {
	return p.URLAs(postgresUser, postgresPassword, database)
}

// URLAs is how to connect to a database as somebody else.
func (p *Postgres) URLAs(name, password, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(name, password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)), Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// CreateDatabase makes a new database, a copy of template, or empty if that is "". Nobody may be connected to template.
func (p *Postgres) CreateDatabase(ctx context.Context, template string) (name string, err error) {
	p.names.Lock()
	defer p.names.Unlock()
	p.count++
	name = fmt.Sprintf("test_%d", p.count)
	if template == "" {
		template = "template0"
	}
	return name, p.Exec(ctx, "postgres", "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()+" TEMPLATE "+pgx.Identifier{template}.Sanitize())
}

// DropDatabase removes a database, whoever is connected to it.
func (p *Postgres) DropDatabase(ctx context.Context, name string) error {
	return p.Exec(ctx, "postgres", "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
}

// Exec runs statements in a database as the superuser.
func (p *Postgres) Exec(ctx context.Context, database, statements string) error {
	conn, err := pgx.Connect(ctx, p.URL(database))
	if err != nil {
		return err
	}
	_, err = conn.PgConn().Exec(ctx, statements).ReadAll()
	return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}

// guard is a process that ends another one should ours die: its standard input then ends.
type guard struct {
	cmd   *exec.Cmd
	input io.Closer
}

func newGuard(pid int) (*guard, error) {
	cmd := exec.Command("/bin/sh", "-c", `read -r line || kill -QUIT "$1"`, "guard", strconv.Itoa(pid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a guard: %w", err)
	}
	return &guard{cmd: cmd, input: in}, nil
}

// dismiss ends the guard without harm.
func (g *guard) dismiss() {
	if g == nil || g.cmd == nil {
		return
	}
	_ = g.cmd.Process.Kill()
	_ = g.cmd.Wait()
	_ = g.input.Close()
	g.cmd = nil
}
