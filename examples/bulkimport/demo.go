package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"os"
	"slices"
	"time"
)

// server is what a demo talks to: in this process, or in one that may be killed.
type server interface {
	url() string
	stop() error
}

// demo posts a CSV to a server of its own, follows the import, and checks what has come of it.
func demo(ctx context.Context, o options, out io.Writer) (err error) {
	s := generate(o.Rows, o.Seed)
	fmt.Fprintf(out, "a CSV of %d rows, %d of them bad, %.1f MB; seed %d\n", o.Rows, len(s.bad), float64(len(s.csv))/1e6, o.Seed)
	b := newBar(out)
	var srv server
	k := &killer{rand: mathrand.New(mathrand.NewPCG(uint64(time.Now().UnixNano()), 0)), say: b.say, kills: o.Kills}
	if o.Kills == 0 {
		srv, err = newHere(ctx, o)
	} else {
		k.child, err = newChild(ctx, o)
		srv = k.child
	}
	if err != nil {
		return err
	}
	location, err := try(ctx, client{srv.url()}, s, b, k)
	if err := errors.Join(err, srv.stop()); err != nil {
		return err
	}
	if k.done < k.kills {
		return fmt.Errorf("the import was over when the server had been killed %d times; give it more -rows or a longer -pace", k.done)
	}
	return verify(ctx, o, location, s, out)
}

// try is what a client does.
func try(ctx context.Context, c client, s sample, b *bar, k *killer) (location string, err error) {
	begin := time.Now()
	if location, err = c.post(ctx, s.csv, rand.Text()); err != nil {
		return "", err
	}
	b.say("POST %s%s: 202 after %d ms, Location: %s", c.base, path, time.Since(begin).Milliseconds(), location)
	st, err := c.follow(ctx, location, func(st status) error {
		b.show(st)
		return k.see(ctx, st)
	})
	if err != nil {
		return "", err
	}
	b.say("%s after %.1f s", st.Status, time.Since(begin).Seconds())
	if st.Result == nil {
		return "", fmt.Errorf("the import is %s and has no result: %s", st.Status, st.Error)
	}
	b.say("%d rows: %d imported, %d bad:", st.Result.Rows, st.Result.Imported, st.Result.Bad)
	for _, r := range st.Result.FirstBad {
		b.say("  line %d: %s", r.Line, r.Reason)
	}
	if more := st.Result.Bad - len(st.Result.FirstBad); more > 0 {
		b.say("  and %d more at %s/bad", more, location)
	}
	list, err := c.badRows(ctx, location)
	if err != nil {
		return "", err
	}
	if st.Result.Imported != len(s.good) || st.Result.Bad != len(s.bad) || !slices.Equal(list, s.bad) {
		return "", fmt.Errorf("%d good and %d bad rows are in the file; the list of bad ones has %d", len(s.good), len(s.bad), len(list))
	}
	return location, nil
}

// verify counts in the database what an import has done. The server is gone.
func verify(ctx context.Context, o options, location string, s sample, out io.Writer) error {
	svc, err := open(o, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer svc.db.Close() //nolint:errcheck // it was only read
	id := location[len(path)+1:]
	products, err := svc.products(ctx, id)
	if err != nil {
		return err
	}
	bad, err := svc.badRows(ctx, id, -1)
	if err != nil {
		return err
	}
	switch {
	case !slices.Equal(products, s.good):
		return fmt.Errorf("the file has %d good rows; %d are in the database, or other ones", len(s.good), len(products))
	case !slices.Equal(bad, s.bad):
		return fmt.Errorf("the file has %d bad rows; %d are in the database, or other ones", len(s.bad), len(bad))
	}
	fmt.Fprintf(out, "checked in the database: each of the %d good rows is there once, each of the %d bad ones is reported once\n", len(products), len(bad))
	return nil
}

// here is a server in this process.
type here struct {
	addr  string
	end   context.CancelFunc
	ended chan error
}

func newHere(ctx context.Context, o options) (*here, error) {
	s, err := open(o, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	h := &here{addr: l.Addr().String(), ended: make(chan error, 1)}
	ctx, h.end = context.WithCancel(ctx)
	go func() { h.ended <- s.run(ctx, l) }()
	return h, nil
}

func (h *here) url() string { return "http://" + h.addr }

func (h *here) stop() error {
	h.end()
	return <-h.ended
}
