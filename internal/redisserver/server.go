// Package redisserver starts private redis-servers that may be killed, paused and started again.
package redisserver

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrMissing says that there is no redis-server to start.
var ErrMissing = errors.New("redisserver: redis-server is not installed (apt-get install redis-server, brew install redis)")

// Server is a redis-server of one's own, on a free port of the loopback. Its methods must not be called at once.
type Server struct {
	Addr string

	port     int
	dir      string
	sentinel string // its configuration file, if it is one
	args     []string
	cmd      *exec.Cmd
	done     chan struct{}
}

// Start starts a server that keeps its files in dir. args are added to its command line and win over the defaults: no snapshots,
// appendonly no.
func Start(dir string, args ...string) (*Server, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, ErrMissing
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &Server{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), port: port, dir: dir, args: args}
	err = s.Start()
	return s, err
}

// StartSentinel starts a Sentinel that watches a primary under a name, and promotes its replica once it has not answered for half a second.
func StartSentinel(dir, name, primary string) (*Server, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, ErrMissing
	}
	host, port, err := net.SplitHostPort(primary)
	if err != nil {
		return nil, err
	}
	own, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &Server{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(own)), port: own, dir: dir, sentinel: filepath.Join(dir, "sentinel.conf")}
	conf := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor %[3]s %[4]s %[5]s 1\nsentinel down-after-milliseconds %[3]s 500\nsentinel failover-timeout %[3]s 3000\n", own, dir, name, host, port)
	if err := os.WriteFile(s.sentinel, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	err = s.Start()
	return s, err
}

// freePort finds a port that is free, and the one 10,000 above it too, which a node of a Cluster takes.
func freePort() (int, error) {
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // of a TCP listener
		_ = l.Close()
		if port+10_000 > 65_535 {
			port -= 20_000
		}
		if port > 1024 && isFree(port) && isFree(port+10_000) {
			return port, nil
		}
	}
	return 0, errors.New("redisserver: no free port")
}

func isFree(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

// Start starts it again after Kill or Stop, with the files that it left.
func (s *Server) Start() error {
	args := append([]string{"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no", "--loglevel", "warning"}, s.args...)
	if s.sentinel != "" {
		args = []string{s.sentinel, "--sentinel"}
	}
	s.cmd = exec.Command("redis-server", args...) //nolint:noctx,gosec // Kill and Stop end it; the arguments are a test's
	log, err := os.OpenFile(filepath.Join(s.dir, "redis.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the server has its own
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = diesWithParent()
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("redisserver: %w", err)
	}
	s.done = make(chan struct{})
	go func() { // ends with the process
		_ = s.cmd.Wait()
		close(s.done)
	}()
	return s.answers(20 * time.Second)
}

// answers waits until it answers, its files loaded.
func (s *Server) answers(within time.Duration) error {
	for end := time.Now().Add(within); time.Now().Before(end); {
		select {
		case <-s.done:
			text, _ := os.ReadFile(filepath.Join(s.dir, "redis.log"))
			return fmt.Errorf("redisserver: it ended at once: %s", tail(string(text)))
		case <-time.After(5 * time.Millisecond):
		}
		if ping(s.Addr) {
			return nil
		}
	}
	return fmt.Errorf("redisserver: no answer from %s within %v", s.Addr, within)
}

func tail(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "; ")
}

func ping(addr string) bool {
	c, err := (&net.Dialer{Timeout: time.Second}).Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close() //nolint:errcheck // it was only asked
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return err == nil && (strings.HasPrefix(line, "+PONG") || strings.HasPrefix(line, "-NOAUTH") || strings.HasPrefix(line, "-NOPERM"))
}

// Kill ends it as a crash of the machine would, but for what the kernel has not written yet.
func (s *Server) Kill() error { return s.end(syscall.SIGKILL) }

// Stop ends it as an operator would.
func (s *Server) Stop() error { return s.end(syscall.SIGTERM) }

func (s *Server) end(sig syscall.Signal) error {
	select {
	case <-s.done:
		return nil
	default:
	}
	_ = s.cmd.Process.Signal(syscall.SIGCONT)
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("redisserver: %w", err)
	}
	<-s.done
	return nil
}

// Pause stops it without ending it; Resume lets it go on.
func (s *Server) Pause() error { return s.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() error { return s.cmd.Process.Signal(syscall.SIGCONT) }
