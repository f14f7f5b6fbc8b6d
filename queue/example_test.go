package queue_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

func Example() {
	jobs, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	mux := queue.NewMux()
	mux.Handle("ship", func(_ context.Context, job queue.Job) error {
		if job.Attempts == 0 && string(job.Payload) == "created" {
			fmt.Println("the carrier is busy")
			return errors.New("busy") // again in a moment, and nothing of this order before it
		}
		fmt.Println(job.Key, string(job.Payload))
		if string(job.Payload) == "cancelled" {
			stop()
		}
		return nil
	})
	for _, what := range []string{"created", "paid", "cancelled"} {
		if _, err := jobs.Enqueue(ctx, queue.Job{Kind: "ship", Group: "a.myshopify.com", Key: "order/1", Payload: []byte(what)}); err != nil {
			panic(err)
		}
	}
	err = jobs.Run(ctx, mux, queue.WorkerConfig{Backoff: func(int) time.Duration { return time.Millisecond }})
	fmt.Println(err)
	// Output:
	// the carrier is busy
	// order/1 created
	// order/1 paid
	// order/1 cancelled
	// <nil>
}

// A tracked job tells how far it has come, and what came of it.
func ExampleReportProgress() {
	jobs, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	mux := queue.NewMux()
	mux.Handle("import", func(ctx context.Context, _ queue.Job) error {
		defer stop()
		for row := range 10 {
			if err := queue.ReportProgress(ctx, 10*row, fmt.Sprintf("row %d", row)); err != nil {
				return err // another worker has the job
			}
		}
		return queue.SetResult(ctx, []byte(`{"rows":10}`))
	})
	receipts, err := jobs.Enqueue(ctx, queue.Job{Kind: "import", Track: true})
	if err != nil {
		panic(err)
	}
	if err := jobs.Run(ctx, mux, queue.WorkerConfig{}); err != nil {
		panic(err)
	}
	st, err := jobs.Status(context.Background(), receipts[0].ID)
	fmt.Println(st.State, st.Percent, st.Note, string(st.Result), err)
	// Output: succeeded 100 row 9 {"rows":10} <nil>
}

// What follows from a job is enqueued in the step in which the job is done: both happen or neither.
func ExampleQueue_EnqueueOnAck() {
	jobs, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	mux := queue.NewMux()
	mux.Handle("ship", func(ctx context.Context, job queue.Job) error {
		_, err := jobs.EnqueueOnAck(ctx, queue.Job{Kind: "mail", Group: job.Group, Payload: []byte("it is on its way")})
		return err
	})
	mux.Handle("mail", func(_ context.Context, job queue.Job) error {
		fmt.Println("mail:", string(job.Payload))
		stop()
		return nil
	})
	if _, err := jobs.Enqueue(ctx, queue.Job{Kind: "ship", Group: "a.myshopify.com", Key: "order/1"}); err != nil {
		panic(err)
	}
	fmt.Println(jobs.Run(ctx, mux, queue.WorkerConfig{}))
	// Output:
	// mail: it is on its way
	// <nil>
}

// A key is rotated by putting the new one second, then first, in all processes.
func ExampleAESGCM() {
	older, err := queue.AESGCM(queue.Key{ID: "2025", Secret: make([]byte, 32)}) // from a secret store
	if err != nil {
		panic(err)
	}
	newer, err := queue.AESGCM(queue.Key{ID: "2026", Secret: make([]byte, 16)}, queue.Key{ID: "2025", Secret: make([]byte, 32)})
	if err != nil {
		panic(err)
	}
	stored, err := older.Encode("job-1", []byte("order"))
	if err != nil {
		panic(err)
	}
	payload, err := newer.Decode("job-1", stored)
	fmt.Println(string(payload), err)
	_, err = queue.New(new(queue.Memory), queue.Config{AllowVolatile: true, Codecs: []queue.Codec{queue.Chain(queue.Deflate(), newer)}})
	fmt.Println(err)
	// Output:
	// order <nil>
	// <nil>
}

// What fails for good is kept until somebody looks at it.
func ExampleQueue_Replay() {
	jobs, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	mended := false
	var stop context.CancelFunc
	mux := queue.NewMux()
	mux.Handle("ship", func(context.Context, queue.Job) error {
		defer stop()
		if mended {
			fmt.Println("shipped")
			return nil
		}
		return queue.Permanent(errors.New("carrier: contract ended"))
	})
	runOnce := func() error {
		var once context.Context
		once, stop = context.WithCancel(ctx)
		defer stop()
		return jobs.Run(once, mux, queue.WorkerConfig{})
	}
	if _, err := jobs.Enqueue(ctx, queue.Job{Kind: "ship", Key: "order/1"}); err != nil {
		panic(err)
	}
	fmt.Println(runOnce())
	mended = true
	fmt.Println(jobs.Replay(ctx, queue.DeadFilter{Kind: "ship", Error: "contract"}))
	fmt.Println(runOnce())
	// Output:
	// <nil>
	// 1 <nil>
	// shipped
	// <nil>
}

// An error that no later try can mend makes its job a dead letter at once.
func ExamplePermanent() {
	jobs, err := queue.New(new(queue.Memory), queue.Config{AllowVolatile: true})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	mux := queue.NewMux()
	mux.Handle("ship", func(context.Context, queue.Job) error {
		stop()
		return queue.Permanent(errors.New("no such address"))
	})
	if _, err := jobs.Enqueue(ctx, queue.Job{Kind: "ship"}); err != nil {
		panic(err)
	}
	if err := jobs.Run(ctx, mux, queue.WorkerConfig{}); err != nil {
		panic(err)
	}
	dead, err := jobs.Dead(context.Background(), queue.DeadFilter{Limit: 10})
	fmt.Println(len(dead), dead[0].Error, err)
	// Output: 1 no such address <nil>
}
