package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	_ "modernc.org/sqlite" // the driver

	"github.com/breakwater-go/breakwater/queue"
	"github.com/breakwater-go/breakwater/queue/sqlqueue"
)

const (
	driver = "sqlite"

	durableRate = 20_000 // jobs a second that 64 callers enqueue
	workedRate  = 8_000  // jobs a second that are enqueued, claimed and settled
	pickUpLimit = 10     // ms within which 99 of 100 jobs of a trickle are picked up
	remoteLooks = 50     // ms between a worker's looks for what other processes have enqueued

	shops       = 100
	smallest    = 1000           // jobs that wait, at least
	otherLanes  = 500            // that jobs go through while others wait: two each at the smallest size
	deepBacklog = "deep backlog" // the series whose queues are drained in the end
	// noDisk is how many syncs a second no disk can confirm: what is in memory confirms nothing.
	noDisk = 200_000
)

// file is a queue in a SQLite file of its own, at the engine's default settings.
type file struct {
	backend
	db   *sql.DB
	path string
}

func openFile(path string) (*file, error) {
	db, err := sql.Open(driver, path)
	if err != nil {
		return nil, err
	}
	return &file{sqlqueue.New(db, sqlqueue.Config{}), db, path}, nil
}

// fileSizes is how much is measured.
type fileSizes struct {
	rounds  int
	jobs    int           // of a round of throughput, a multiple of batchJobs*batchJobs
	first   int           // of one that is not measured, the same
	alone   int           // jobs of a round of one caller or of one row a transaction, a multiple of batchJobs
	syncs   time.Duration // how long a round asks the disk
	noDisk  float64       // so many syncs a second mean that there is none
	rate    int           // jobs a second of the trickle
	trickle int           // jobs of a round of it
	turn    int           // jobs of a turn of a series, a multiple of batchJobs
	points  []int         // how many jobs wait
	refills int           // rounds of fill and drain
	fill    int           // jobs of each, a multiple of batchJobs
	stall   time.Duration // without a job that ran: the rest never will
}

// fileBench is one run.
type fileBench struct {
	rep   *report
	dir   string
	open  func(path string) (*file, error) // makes the queue if there is none
	sizes fileSizes

	opened []io.Closer // by the part that runs
}

// benchSQLite measures queues in SQLite files beneath dir.
func benchSQLite(ctx context.Context, rep *report, dir string, rounds, most int) (err error) {
	if dir, err = os.MkdirTemp(dir, "bench-*"); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &fileBench{rep: rep, dir: dir, open: openFile, sizes: fileSizes{
		rounds: rounds, jobs: 1 << 14, first: 1 << 12, alone: 1 << 10, syncs: time.Second / 2, noDisk: noDisk, rate: 200, trickle: 600, turn: 1 << 10,
		refills: 10, fill: 1 << 12, stall: 10 * time.Second,
	}}
	for n := smallest; n <= most; n *= 10 {
		b.sizes.points = append(b.sizes.points, n)
	}
	return b.run(ctx)
}

func (b *fileBench) run(ctx context.Context) error {
	b.rep.head()
	for _, part := range []func(context.Context) error{b.throughput, b.pickUp, b.refill, b.series} {
		if err := errors.Join(part(ctx), b.close()); err != nil {
			return fmt.Errorf("bench: sqlite: %w", err)
		}
	}
	return b.rep.finish()
}

func (b *fileBench) close() (err error) {
	for _, c := range b.opened {
		err = errors.Join(err, c.Close())
	}
	b.opened = nil
	return err
}

func (b *fileBench) add(name, unit string, ours, peer float64, w want, problem error) {
	b.rep.add("sqlite "+name, unit, ours, peer, w, problem)
}

// keep opens a file until the part is over.
func (b *fileBench) keep(path string) (*file, error) {
	f, err := b.open(path)
	if err == nil {
		b.opened = append(b.opened, f.db)
	}
	return f, err
}

func (b *fileBench) path(name string) string { return filepath.Join(b.dir, name+".db") }

// holds says what a queue holds for somebody who opens its file anew, if that is not what it should.
func (b *fileBench) holds(ctx context.Context, f *file, want queue.Stats) (problem, err error) {
	again, err := b.open(f.path)
	if err != nil {
		return nil, err
	}
	stats, err := again.Stats(ctx, driven)
	return checkStats(stats, want), errors.Join(err, again.db.Close())
}

// discard closes a queue and removes its files.
func (f *file) discard() error {
	err := f.db.Close()
	for _, suffix := range []string{"", "-wal", "-shm", "-reserve"} {
		if e := os.Remove(f.path + suffix); !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// space is what a queue takes of the disk without its reserve, and how much of that it uses.
func (f *file) space(ctx context.Context) (size, used int64, err error) {
	for _, suffix := range []string{"", "-wal"} {
		info, err := os.Stat(f.path + suffix)
		if errors.Is(err, os.ErrNotExist) { // there is no log yet
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		size += info.Size()
	}
	err = f.db.QueryRowContext(ctx, "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size").Scan(&used)
	return size, used, err
}

// stored is a load that one process puts into a file and another works off when all of it is there.
type stored struct {
	*load
	path  string
	rates []float64 // jobs enqueued a second, by round
}

func (b *fileBench) newStored(name string, producers, batch int) *stored {
	return &stored{load: makeLoad(laneNames(1<<14, shops), producers, batch), path: b.path(name)}
}

// enqueue opens the file and sends jobs. They are worked off by somebody else, who opens it while it is still open: so nothing is
// there that only its end would have written. No round knows of the one before, since an engine makes room for others when it has met any.
func (b *fileBench) enqueue(ctx context.Context, s *stored, jobs int) (err error) {
	if s.err != nil {
		return nil // which problem tells
	}
	f, err := b.open(s.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.db.Close()) }()
	if err := s.over(f); err != nil {
		return err
	}
	if err := s.send(ctx, batchJobs, nil)(); err != nil { // they make the tables, the reserve and the statements
		return err
	}
	runtime.GC()
	start := time.Now()
	if err := s.send(ctx, jobs, nil)(); err != nil {
		return err
	}
	s.rates = append(s.rates, float64(jobs)/time.Since(start).Seconds())

	again, err := b.open(s.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, again.db.Close()) }()
	stats, err := again.Stats(ctx, driven)
	if err != nil {
		return err
	}
	if s.err = checkStats(stats, queue.Stats{Jobs: batchJobs + jobs}); s.err != nil {
		return nil
	}
	return errors.Join(s.over(again), s.work(ctx, b.sizes.stall))
}

// problem says why the figures of a load mean nothing, if they don't. The file is opened anew to see what is left in it.
func (b *fileBench) problem(ctx context.Context, l *load, path string) (problem, err error) {
	f, err := b.open(path)
	if err != nil {
		return nil, err
	}
	if err := l.over(f); err != nil {
		return nil, errors.Join(err, f.db.Close())
	}
	return l.problem(ctx), f.db.Close()
}

// worked is a load that is worked off while it is sent, by the process that sends it or by another: they share nothing but the file.
func (b *fileBench) worked(ctx context.Context, name string, processes int) (*load, error) {
	sender, err := b.keep(b.path(name))
	if err != nil {
		return nil, err
	}
	worker := sender
	if processes > 1 {
		if worker, err = b.keep(sender.path); err != nil {
			return nil, err
		}
	}
	l := makeLoad(laneNames(1<<14, shops), batchJobs, 1)
	if err := l.between(sender, worker); err != nil {
		return nil, err
	}
	// The first jobs make the tables, the reserve and the statements.
	err = l.round(ctx, b.sizes.first, b.sizes.stall)
	l.rates = nil
	return l, err
}

// throughput is how many jobs a second go into the file, and through it, beside what the disk and a table allow.
func (b *fileBench) throughput(ctx context.Context) error {
	n := &b.sizes
	table, err := newBare(ctx, b.dir, batchJobs)
	if err != nil {
		return err
	}
	b.opened = append(b.opened, table.db)
	single, err := newBare(ctx, b.dir, 1)
	if err != nil {
		return err
	}
	b.opened = append(b.opened, single.db)
	callers, batches, caller := b.newStored("callers", batchJobs, 1), b.newStored("batches", 1, batchJobs), b.newStored("caller", 1, 1)
	one, err := b.worked(ctx, "one", 1)
	if err != nil {
		return err
	}
	two, err := b.worked(ctx, "two", 2)
	if err != nil {
		return err
	}

	var appended, inPlace []float64
	for range n.rounds {
		a, e1 := syncs(b.dir, 0, n.syncs)
		p, e2 := syncs(b.dir, overwrites, n.syncs)
		appended, inPlace = append(appended, a), append(inPlace, p)
		if err := errors.Join(e1, e2, table.turn(ctx, n.jobs), single.turn(ctx, n.alone),
			b.enqueue(ctx, callers, n.jobs), b.enqueue(ctx, batches, n.jobs), b.enqueue(ctx, caller, n.alone),
			one.round(ctx, n.jobs, n.stall), two.round(ctx, n.jobs, n.stall)); err != nil {
			return err
		}
	}

	disk := median(inPlace)
	var isMemory error
	if disk > n.noDisk {
		isMemory = fmt.Errorf("%.0f syncs a second: this is no disk; name a directory on one with -dir", disk)
	}
	problems := map[*load]error{}
	for l, name := range map[*load]string{callers.load: "callers", batches.load: "batches", caller.load: "caller", one: "one", two: "two"} {
		problem, err := b.problem(ctx, l, b.path(name))
		if err != nil {
			return err
		}
		problems[l] = errors.Join(isMemory, problem)
	}
	bareProblem, singleProblem := errors.Join(isMemory, table.problem), errors.Join(isMemory, single.problem)
	insert, both, insertOne := median(table.inserts), median(table.both), median(single.inserts)
	b.add("disk, fsync of 4 KiB, in place vs appended", "1/s", disk, median(appended), want{}, isMemory)
	b.add("bare INSERT, 64 a commit vs fsync", "row/s", insert, disk, want{}, bareProblem)
	b.add("bare INSERT and DELETE, 64 a commit vs fsync", "row/s", both, disk, want{}, bareProblem)
	b.add("bare INSERT, 1 a commit vs fsync", "row/s", insertOne, disk, want{}, singleProblem)
	b.add("bare INSERT and DELETE, 1 a commit vs fsync", "row/s", median(single.both), disk, want{}, singleProblem)

	rate := median(callers.rates)
	b.add("enqueue, 64 callers vs target", "job/s", rate, durableRate, want{">=", 1}, problems[callers.load])
	b.add("enqueue, 64 callers vs bare, 64 a commit", "job/s", rate, insert, want{}, errors.Join(problems[callers.load], bareProblem))
	b.add("enqueue, batches of 64 vs bare, 64 a commit", "job/s", median(batches.rates), insert, want{}, errors.Join(problems[batches.load], bareProblem))
	b.add("enqueue, 1 caller vs bare, 1 a commit", "job/s", median(caller.rates), insertOne, want{}, errors.Join(problems[caller.load], singleProblem))
	rate = median(one.rates)
	b.add("end to end, 64 callers vs target", "job/s", rate, workedRate, want{">=", 1}, problems[one])
	b.add("end to end, 64 callers vs bare, 64 a commit", "job/s", rate, both, want{}, errors.Join(problems[one], bareProblem))
	b.add("end to end, two processes vs one", "job/s", median(two.rates), rate, want{}, errors.Join(problems[two], problems[one]))
	return nil
}

// pickUp is how long a job waits for a worker that has nothing else to do, in the sender's process or in another.
func (b *fileBench) pickUp(ctx context.Context) error {
	var files [3]*file
	for i, name := range []string{"near", "far", "far"} {
		var err error
		if files[i], err = b.keep(b.path(name)); err != nil {
			return err
		}
	}
	one, e1 := newQueues(files[0], files[0])
	two, e2 := newQueues(files[1], files[2])
	if err := errors.Join(e1, e2); err != nil {
		return err
	}
	near := &pickUp{system: one, rate: b.sizes.rate}
	far := &pickUp{system: two, rate: b.sizes.rate}
	for range b.sizes.rounds {
		for _, p := range []*pickUp{near, far} {
			if err := p.round(ctx, b.sizes.trickle, b.sizes.stall); err != nil {
				return err
			}
		}
	}
	for i, p := range []*pickUp{near, far} {
		left, err := b.holds(ctx, files[i], queue.Stats{})
		if err != nil {
			return err
		}
		p.problem = errors.Join(p.problem, left)
	}
	b.add("pick-up p50 vs limit of p99", "ms", median(near.p50), pickUpLimit, want{}, near.problem)
	b.add("pick-up p99 vs limit", "ms", median(near.p99), pickUpLimit, want{"<=", 1}, near.problem)
	b.add("pick-up by another process p50 vs its looks", "ms", median(far.p50), remoteLooks, want{}, far.problem)
	b.add("pick-up by another process p99 vs its looks", "ms", median(far.p99), remoteLooks, want{}, far.problem)
	return nil
}

// refill fills and drains a queue again and again: its file must not grow but in the first rounds, which make the log as large as it gets.
func (b *fileBench) refill(ctx context.Context) error {
	s := b.newStored("refill", batchJobs, 1)
	if err := b.enqueue(ctx, s, batchJobs); err != nil {
		return err
	}
	f, err := b.keep(s.path)
	if err != nil {
		return err
	}
	_, empty, err := f.space(ctx)
	if err != nil {
		return err
	}
	var sizes []int64
	var used int64
	for range b.sizes.refills {
		if err := b.enqueue(ctx, s, b.sizes.fill); err != nil {
			return err
		}
		var size int64
		if size, used, err = f.space(ctx); err != nil {
			return err
		}
		sizes = append(sizes, size)
	}
	problem, err := b.problem(ctx, s.load, s.path)
	if err != nil {
		return err
	}
	last, half := len(sizes), (len(sizes)+1)/2
	b.add(fmt.Sprintf("fill and drain %d, file vs round 1", half), "KB", kilo(sizes[half-1]), kilo(sizes[0]), want{}, problem)
	b.add(fmt.Sprintf("fill and drain %d, file vs round %d", last, half), "KB", kilo(sizes[last-1]), kilo(sizes[half-1]), want{"<=", flat}, problem)
	b.add(fmt.Sprintf("fill and drain %d, in use vs when empty", last), "KB", kilo(used), kilo(empty), want{"<=", flat}, problem)
	return nil
}

func kilo(n int64) float64 { return float64(n) / 1000 }

// series are what a job costs while others wait: enqueued, claimed 32 at a time, settled.
func (b *fileBench) series(ctx context.Context) error {
	for _, s := range []struct {
		what string
		at   func(n int) population
	}{
		// All of them are there to be claimed in turn: a job that is enqueued goes behind n others, and those that waited longest are claimed. Each
		// makes its lane and is its last.
		{"backlog", func(n int) population { return population{lanes: 2 * n, groups: shops, backlog: n} }},
		// The same, but all lanes are there all the time.
		{deepBacklog, func(n int) population { return population{lanes: otherLanes, groups: shops, backlog: n} }},
		// All of them ready but for the park of their groups, each at the head of a lane, while other jobs go past.
		{"parked", func(n int) population {
			return population{lanes: otherLanes, groups: shops, backlog: depth * otherLanes, parked: n}
		}},
		{"scheduled", func(n int) population {
			return population{lanes: otherLanes, groups: shops, backlog: depth * otherLanes, scheduled: n}
		}},
	} {
		if err := b.measure(ctx, s.what, s.at); err != nil {
			return err
		}
	}
	return nil
}

// measure prints a series. Its queues are all there at once.
func (b *fileBench) measure(ctx context.Context, what string, at func(n int) population) (err error) {
	points := b.sizes.points
	drives, files := make([]*drive, len(points)), make([]*file, len(points))
	defer func() {
		for _, f := range files {
			if f != nil {
				err = errors.Join(err, f.discard())
			}
		}
	}()
	for i, n := range points {
		if files[i], err = b.open(b.path(fmt.Sprintf("%s-%d", what, n))); err != nil {
			return err
		}
		drives[i] = newDrive(ctx, files[i], at(n))
		if err := flush(files[i].path); err != nil {
			return err
		}
	}
	if err := takeTurns(ctx, drives, 4*b.sizes.rounds, bulk, 1, b.sizes.turn); err != nil {
		return err
	}
	last := files[len(files)-1]
	full, _, err := last.space(ctx)
	if err != nil {
		return err
	}
	problems := make([]error, len(points))
	for i, n := range points {
		p := at(n)
		rest := queue.Stats{Jobs: p.parked, Scheduled: p.scheduled, Parked: min(p.parked, parkedGroups)}
		if what != deepBacklog {
			problems[i] = drives[i].leave(ctx, rest)
			rest.Jobs += int(drives[i].queued())
		} else {
			problems[i] = drives[i].finish(ctx, rest)
		}
		if problems[i] != nil {
			continue
		}
		if problems[i], err = b.holds(ctx, files[i], rest); err != nil {
			return err
		}
	}
	const micro = 1000 // ns
	least := median(drives[0].costs.all) / micro
	for i, n := range points {
		problem := problems[0]
		if i > 0 {
			problem = errors.Join(problems[i], problem)
		}
		b.add(fmt.Sprintf("%s %d vs %d", what, n, points[0]), "us", median(drives[i].costs.all)/micro, least, want{"<=", flat}, problem)
	}
	most := points[len(points)-1]
	b.add(fmt.Sprintf("%s %d, file vs payloads", what, most), "KB", kilo(full), kilo(int64(most)*jobBytes), want{}, problems[len(points)-1])
	if what == deepBacklog {
		drained, used, err := last.space(ctx)
		if err != nil {
			return err
		}
		b.add(fmt.Sprintf("%s %d, file after drain vs before", what, most), "KB", kilo(drained), kilo(full), want{}, problems[len(points)-1])
		b.add(fmt.Sprintf("%s %d, in use after drain vs before", what, most), "KB", kilo(used), kilo(full), want{}, problems[len(points)-1])
	}
	return nil
}

// flush brings what was written to the disk, so that this is not done while something is measured.
func flush(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
