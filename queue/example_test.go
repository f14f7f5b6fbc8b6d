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
