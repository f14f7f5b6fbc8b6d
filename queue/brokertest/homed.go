package brokertest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/queue"
)

// homed is one partition of an engine that has several, as an engine of its own: it renames groups so that all live
// in that partition, and calls no other.
type homed struct {
	Engine
	part int

	mu     sync.Mutex
	probes int
	inner  map[string]string // by the suite's name
	outer  map[string]string // and back
}

func newHomed(e Engine, part int) *homed {
	return &homed{Engine: e, part: part, inner: map[string]string{}, outer: map[string]string{}}
}

func (h *homed) Info() queue.BrokerInfo {
	info := h.Engine.Info()
	info.Partitions = 1
	return info
}

// in finds a name for a group that lives in the partition, by trying.
func (h *homed) in(ctx context.Context, group string) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if name, known := h.inner[group]; known {
		return name, nil
	}
	for try := range 1000 {
		name := group + "~" + strconv.Itoa(try)
		h.probes++
		probe := fmt.Sprintf("%s-homes-%p-%d", newName(), h, h.probes)
		r := &rig{engine: h.Engine, name: probe}
		if _, err := r.enqueue(ctx, queue.Job{Group: name}); err != nil {
			return "", err
		}
		c, err := h.Engine.Claim(ctx, probe, queue.Call{Partition: h.part, Process: probe, Number: 1, Max: 1, Lease: time.Hour})
		if err != nil {
			return "", err
		}
		if _, err := h.Engine.Claim(ctx, probe, queue.Call{Partition: h.part, Process: probe, Number: 2, Lease: time.Hour, Settle: settleAll(c, queue.Ack)}); err != nil {
			return "", err
		}
		if _, err := h.Engine.Purge(ctx, probe, queue.PurgeFilter{Group: name}); err != nil {
			return "", err
		}
		if len(c.Jobs) == 1 {
			h.inner[group], h.outer[name] = name, group
			return name, nil
		}
	}
	return "", failed("no group of 1,000 lives in partition %d", h.part)
}

func (h *homed) out(group string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.outer[group]
}

func (h *homed) entries(ctx context.Context, list []queue.Entry) (renamed []queue.Entry, err error) {
	renamed = slices.Clone(list)
	for i := range renamed {
		if renamed[i].Job.Group, err = h.in(ctx, renamed[i].Job.Group); err != nil {
			return nil, err
		}
	}
	return renamed, nil
}

func (h *homed) Enqueue(ctx context.Context, name string, batch queue.Batch) (_ []queue.Receipt, err error) {
	if batch.Jobs, err = h.entries(ctx, batch.Jobs); err != nil {
		return nil, err
	}
	return h.Engine.Enqueue(ctx, name, batch)
}

func (h *homed) Claim(ctx context.Context, name string, call queue.Call) (queue.Claimed, error) {
	call.Partition = h.part
	call.Settle = slices.Clone(call.Settle)
	for i, s := range call.Settle {
		renamed, err := h.entries(ctx, s.Enqueue)
		if err != nil {
			return queue.Claimed{}, err
		}
		call.Settle[i].Enqueue = renamed
	}
	c, err := h.Engine.Claim(ctx, name, call)
	c.Jobs, c.Died = slices.Clone(c.Jobs), slices.Clone(c.Died)
	for i := range c.Jobs {
		c.Jobs[i].Job.Group = h.out(c.Jobs[i].Job.Group)
	}
	for i := range c.Died {
		c.Died[i].Job.Group = h.out(c.Died[i].Job.Group)
	}
	return c, err
}

func (h *homed) Extend(ctx context.Context, name string, beat queue.Heartbeat) (queue.Extended, error) {
	beat.Partition = h.part
	return h.Engine.Extend(ctx, name, beat)
}

func (h *homed) Wait(ctx context.Context, name string, _ int) error {
	return h.Engine.Wait(ctx, name, h.part)
}

// filter renames the group of a filter, of which none means any.
func (h *homed) filter(ctx context.Context, group *string) (err error) {
	if *group != "" {
		*group, err = h.in(ctx, *group)
	}
	return err
}

func (h *homed) Jobs(ctx context.Context, name string, f queue.JobFilter) ([]queue.JobInfo, error) {
	if err := h.filter(ctx, &f.Group); err != nil {
		return nil, err
	}
	jobs, err := h.Engine.Jobs(ctx, name, f)
	for i := range jobs {
		jobs[i].Job.Group = h.out(jobs[i].Job.Group)
	}
	return jobs, err
}

func (h *homed) Dead(ctx context.Context, name string, f queue.DeadFilter) ([]queue.DeadLetter, error) {
	if err := h.filter(ctx, &f.Group); err != nil {
		return nil, err
	}
	dead, err := h.Engine.Dead(ctx, name, f)
	for i := range dead {
		dead[i].Job.Group = h.out(dead[i].Job.Group)
	}
	return dead, err
}

func (h *homed) Status(ctx context.Context, name, id string) (queue.Status, error) {
	s, err := h.Engine.Status(ctx, name, id)
	s.Group = h.out(s.Group)
	return s, err
}

func (h *homed) Purge(ctx context.Context, name string, f queue.PurgeFilter) (queue.Purged, error) {
	if err := h.filter(ctx, &f.Group); err != nil {
		return queue.Purged{}, err
	}
	return h.Engine.Purge(ctx, name, f)
}

func (h *homed) Park(ctx context.Context, name, group string, d time.Duration) error {
	group, err := h.in(ctx, group)
	if err != nil {
		return err
	}
	return h.Engine.Park(ctx, name, group, d)
}

func (h *homed) Limit(ctx context.Context, name, group string, l queue.Limits) error {
	group, err := h.in(ctx, group)
	if err != nil {
		return err
	}
	return h.Engine.Limit(ctx, name, group, l)
}
