package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/breakwater-go/breakwater/queue"
)

const (
	stream      = "jobs"
	streamGroup = "workers"
	readJobs    = 64                     // of an XREADGROUP
	readFor     = 100 * time.Millisecond // that it waits, as Watermill's does
)

// asynqTasks are tasks of asynq. Each has an ID of its own, which is its faster way to drop what comes twice; it does so only until the
// task has run.
type asynqTasks struct {
	client    *asynq.Client // for any number of goroutines, its documentation says
	inspector *asynq.Inspector
	worker    *redis.Client
}

func newAsynq(sender, worker *redis.Client) asynqTasks {
	return asynqTasks{asynq.NewClientFromRedisClient(sender), asynq.NewInspectorFromRedisClient(sender), worker}
}

func (a asynqTasks) enqueue(ctx context.Context, jobs ...queue.Job) (dropped int, err error) {
	for i := range jobs {
		_, err := a.client.EnqueueContext(ctx, asynq.NewTask(jobs[i].Kind, jobs[i].Payload), asynq.TaskID(jobs[i].DedupeKey))
		switch {
		case errors.Is(err, asynq.ErrTaskIDConflict):
			dropped++
		case err != nil:
			return dropped, err
		}
	}
	return dropped, nil
}

func (a asynqTasks) work(ctx context.Context, take func(body []byte)) error {
	server := asynq.NewServerFromRedisClient(a.worker, asynq.Config{Concurrency: slots, LogLevel: asynq.FatalLevel})
	err := server.Start(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		take(task.Payload())
		return nil
	}))
	if err != nil {
		return err
	}
	<-ctx.Done()
	server.Shutdown() // what has run is settled
	return nil
}

func (a asynqTasks) holds(_ context.Context, jobs int) error {
	got, err := a.inspector.GetQueueInfo(driven)
	if err != nil {
		return err
	}
	if got.Pending != jobs || got.Size != jobs {
		return fmt.Errorf("asynq holds %d tasks, of which %d are pending; want %d", got.Size, got.Pending, jobs)
	}
	return nil
}

// streamed is what the contenders over Redis Streams have in common: they neither know duplicates nor remove what was settled.
type streamed struct{ client *redis.Client }

func (s streamed) holds(ctx context.Context, jobs int) error {
	length, err := s.client.XLen(ctx, stream).Result()
	if err != nil {
		return err
	}
	groups, err := s.client.XInfoGroups(ctx, stream).Result()
	if err != nil {
		return err
	}
	for _, g := range groups { // there is one, or none yet
		length = g.Lag + g.Pending
	}
	if length != int64(jobs) {
		return fmt.Errorf("the stream holds %d jobs; want %d", length, jobs)
	}
	return nil
}

// watermillTopic is a topic of Watermill over Redis Streams, with so many subscribers in a consumer group.
type watermillTopic struct {
	streamed
	publisher   *redisstream.Publisher
	subscribers int
}

func newWatermill(client *redis.Client, subscribers int) (w watermillTopic, err error) {
	w = watermillTopic{streamed: streamed{client}, subscribers: subscribers}
	w.publisher, err = redisstream.NewPublisher(redisstream.PublisherConfig{Client: client}, watermill.NopLogger{})
	return w, err
}

func (w watermillTopic) enqueue(_ context.Context, jobs ...queue.Job) (dropped int, err error) {
	messages := make([]*message.Message, len(jobs))
	for i := range jobs {
		messages[i] = message.NewMessage(watermill.NewUUID(), jobs[i].Payload)
	}
	return 0, w.publisher.Publish(stream, messages...)
}

func (w watermillTopic) work(ctx context.Context, take func(body []byte)) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var working sync.WaitGroup
	defer working.Wait()
	for range w.subscribers {
		subscriber, err := redisstream.NewSubscriber(redisstream.SubscriberConfig{
			Client: w.client, ConsumerGroup: streamGroup, DisableIndefiniteInitialBlock: true, // or it would not end
		}, watermill.NopLogger{})
		if err != nil {
			return err
		}
		messages, err := subscriber.Subscribe(context.WithoutCancel(ctx), stream) // an Ack that is under way when ctx ends would be lost
		if err != nil {
			return err
		}
		working.Go(func() {
			defer subscriber.Close() //nolint:errcheck // the others have closed the client as well
			for {
				select {
				case m, ok := <-messages:
					if !ok {
						return
					}
					take(m.Payload)
					m.Ack()
				case <-ctx.Done():
					pause(context.WithoutCancel(ctx), calm) // for the Acks
					return
				}
			}
		})
	}
	<-ctx.Done()
	return nil
}

// bareStream is the limit: what Redis Streams can do without order by key, without attempts, leases or anything else. Jobs go in by
// pipelines, and come out and are settled as many at once.
type bareStream struct {
	streamed
	consumers int
}

func (b bareStream) enqueue(ctx context.Context, jobs ...queue.Job) (dropped int, err error) {
	_, err = b.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i := range jobs {
			pipe.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: []any{"payload", jobs[i].Payload}})
		}
		return nil
	})
	return 0, err
}

func (b bareStream) work(ctx context.Context, take func(body []byte)) error {
	err := b.client.XGroupCreateMkStream(ctx, stream, streamGroup, "0").Err()
	if err != nil && !redis.HasErrorPrefix(err, "BUSYGROUP") {
		return err
	}
	failed := make(chan error, b.consumers)
	for i := range b.consumers {
		go func() { failed <- b.consume(ctx, fmt.Sprint(i), take) }()
	}
	err = nil
	for range b.consumers {
		err = errors.Join(err, <-failed)
	}
	return err
}

func (b bareStream) consume(ctx context.Context, name string, take func(body []byte)) error {
	settling := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		read, err := b.client.XReadGroup(settling, &redis.XReadGroupArgs{
			Group: streamGroup, Consumer: name, Streams: []string{stream, ">"}, Count: readJobs, Block: readFor,
		}).Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return err
		}
		messages := read[0].Messages
		ids := make([]string, len(messages))
		for i := range messages {
			ids[i] = messages[i].ID
			body, _ := messages[i].Values["payload"].(string)
			take([]byte(body))
		}
		if err := b.client.XAck(settling, stream, streamGroup, ids...).Err(); err != nil {
			return err
		}
	}
	return nil
}
