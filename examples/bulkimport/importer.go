package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

const (
	chunkRows = 250 // what is done again, at most, when the process dies
	firstBad  = 10  // bad rows in the result, which has room for 64 KiB; all are at /imports/{id}/bad
)

// importer runs imports.
type importer struct {
	store
	pace time.Duration
}

// result is what the status of an import that is done says.
type result struct {
	Rows     int      `json:"rows"`
	Imported int      `json:"imported"`
	Bad      int      `json:"bad"`
	FirstBad []badRow `json:"firstBad"`
}

// handle is the queue's handler.
func (im importer) handle(ctx context.Context, job queue.Job) error {
	p, err := im.run(ctx, job.ID, job.Payload, func(percent int, note string) error {
		return queue.ReportProgress(ctx, percent, note)
	})
	if err != nil {
		return err
	}
	res := result{Rows: p.Imported + p.Bad, Imported: p.Imported, Bad: p.Bad}
	if res.FirstBad, err = im.badRows(ctx, job.ID, firstBad); err != nil {
		return err
	}
	body, err := json.Marshal(res)
	if err != nil {
		return err
	}
	// If the process dies here, before the queue knows that the job is done, the next run finds the position at the end.
	return queue.SetResult(ctx, body)
}

// run imports what is not yet imported.
func (im importer) run(ctx context.Context, id string, data []byte, report func(percent int, note string) error) (position, error) {
	f, err := newFile(data)
	if err != nil {
		return position{}, queue.Permanent(err) // accept has read it: it can't be
	}
	if err := im.begin(ctx, id, f.first); err != nil {
		return position{}, ended(ctx, err)
	}
	for {
		p, err := im.position(ctx, id)
		if err != nil {
			return p, ended(ctx, err)
		}
		note := fmt.Sprintf("%d rows: %d imported, %d bad", p.Imported+p.Bad, p.Imported, p.Bad)
		if err := report(100*p.At/len(data), note); err != nil || p.At >= len(data) {
			return p, ended(ctx, err)
		}
		if f.place != p.place { // the first round, or another worker has done our last chunk
			f.seek(p.place)
		}
		rows := f.chunk(chunkRows)
		if err := im.call(ctx); err != nil {
			return p, err
		}
		// Whether it was this worker that has saved the chunk makes no difference: it is saved.
		if _, err := im.save(ctx, id, p.place, f.place, &f.columns, rows); err != nil {
			return p, ended(ctx, err)
		}
	}
}

// call stands for what takes long in a real import: the calls to an API. They are made outside of the chunk's transaction, because SQLite has one
// writer, and the heartbeat that keeps this job is one: it needs such pauses to get its turn. A chunk that was not saved is called for again, so
// each call needs a key, of the import and the line, by which the API knows it.
func (im importer) call(ctx context.Context) error {
	select {
	case <-time.After(im.pace):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ended says why the context has ended where that is the reason: because the import was cancelled, for instance.
func ended(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
