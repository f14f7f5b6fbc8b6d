package main

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/csv"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	_ "modernc.org/sqlite"

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/jobhttp"
	"github.com/breakwater-go/breakwater/queue/sqlqueue"
)

const (
	path      = "/imports"
	maxUpload = 16 << 20 // bytes; 10,000 rows take 3 or 4 MiB
	statusFor = 7 * 24 * time.Hour
)

//go:embed page.html
var page []byte

// service takes imports and runs them. One process does both here; the one that takes and those that run may as well be several.
type service struct {
	db   *sql.DB
	jobs *queue.Queue
	work *queue.Mux
	api  *jobhttp.Handler
	store
}

func open(o options, log *slog.Logger) (*service, error) {
	// The transactions of the import wait for those of the queue, as the queue's do for them.
	db, err := sql.Open("sqlite", o.DB+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, err
	}
	s := &service{db: db, store: store{db}}
	if err := s.open(o, log); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func (s *service) open(o options, log *slog.Logger) (err error) {
	broker := sqlqueue.New(s.db, sqlqueue.Config{Logger: log})
	if err := broker.Migrate(context.Background()); err != nil { // makes the file what the queue needs before anything is written
		return err
	}
	if err := s.create(context.Background()); err != nil {
		return err
	}
	// Packed, a CSV has a fraction of its size.
	s.jobs, err = queue.New(broker, queue.Config{Codecs: []queue.Codec{queue.Deflate()}, Logger: log})
	if err != nil {
		return err
	}
	s.work = queue.NewMux()
	s.work.Handle(kind, importer{s.store, o.Pace}.handle)
	// Anyone: who knows an import's ID, which can't be guessed, may see and cancel it. A real app has a middleware that says which shop
	// the request is of, sets that as the job's Group in accept, and compares it with the Status's Group here.
	s.api, err = jobhttp.New(s.jobs, accept, jobhttp.Anyone, jobhttp.Config{
		Path: path, MaxBytes: maxUpload, StatusFor: statusFor, Logger: log,
		Poll: 200 * time.Millisecond, RetryAfter: time.Second, // so that the bar moves, and is soon back after a kill
	})
	return err
}

func (s *service) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(path, s.api)
	mux.Handle(path+"/", s.api)
	mux.HandleFunc("GET "+path+"/{id}/bad", s.bad)
	mux.HandleFunc("GET /sample.csv", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/csv; charset=utf-8")
		_, _ = w.Write(generate(10_000, 1).csv)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page)
	})
	return mux
}

// bad answers all bad rows of an import as CSV. They are there while the import runs, and for as long as its status is.
func (s *service) bad(w http.ResponseWriter, r *http.Request) {
	st, err := s.jobs.Status(r.Context(), r.PathValue("id"))
	switch {
	case errors.Is(err, queue.ErrUnknownJob), err == nil && !jobhttp.Anyone(r, st):
		http.Error(w, "There is no import of this ID, or none that you may see.", http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, "The queue is not available. Try again later.", http.StatusServiceUnavailable)
		return
	}
	list, err := s.badRows(r.Context(), st.ID, -1)
	if err != nil {
		http.Error(w, "The rows can't be read. Try again later.", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	out := csv.NewWriter(w)
	_ = out.Write([]string{"line", "reason"})
	for _, b := range list {
		_ = out.Write([]string{strconv.Itoa(b.Line), b.Reason})
	}
	out.Flush() // a client that is gone asks again
}

// run serves and works until ctx ends. Then it takes no more, gives back what it has not finished, and closes the database.
func (s *service) run(ctx context.Context, l net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	srv := &http.Server{Handler: s.routes(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: time.Minute}
	srv.RegisterOnShutdown(s.api.EndStreams)
	served := make(chan error, 1)
	go func() {
		served <- srv.Serve(l)
		stop() // who can't serve need not work either
	}()
	down := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		within, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer done()
		down <- srv.Shutdown(within)
	})
	err := s.jobs.Run(ctx, s.work, queue.WorkerConfig{
		Concurrency: 4, // each has a whole file in memory
		// How long an import stands still after its process was killed: once this, or twice if nobody was there meanwhile. Real apps leave the 30 s
		// that are the default: a short lease is lost by a process that is merely slow. No row is imported twice then either, but some are begun twice.
		Lease: 2 * time.Second,
		Drain: time.Second, // an import need not come to its end, it has a position
	})
	stop()
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return errors.Join(err, <-down, s.db.Close())
}
