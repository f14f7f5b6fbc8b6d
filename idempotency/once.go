package idempotency

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Once makes a handler whose work is done once for each key: calls of what was done return nil. See [Keeper.Do] for what else they return. The returned handler panics
// if keyOf does.
//
//	ship = idempotency.Once(keeper, "ship", func(e webhook.Event[Order]) idempotency.Key {
//		return idempotency.Key{Scope: e.Shop, ID: e.Subject}
//	}, ship)
func Once[T any](k *Keeper, op string, keyOf func(in T) Key, next func(ctx context.Context, in T) error) func(ctx context.Context, in T) error {
	return func(ctx context.Context, in T) error {
		r, err := NewRequest(op, keyOf(in)) // before the work, which may change in
		if err != nil {
			return err
		}
		_, err = k.do(ctx, r, func(ctx context.Context) (outcome, error) {
			return outcome{kind: value}, next(ctx, in)
		})
		return err
	}
}

// OnceValue is Once for a func with a result: calls of what was done return that of the first. It is kept as JSON; []byte and json.RawMessage are kept as they
// are.
func OnceValue[T, R any](k *Keeper, op string, keyOf func(in T) Key, next func(ctx context.Context, in T) (R, error)) func(ctx context.Context, in T) (R, error) {
	return func(ctx context.Context, in T) (R, error) {
		var fresh, none R
		r, err := NewRequest(op, keyOf(in))
		if err != nil {
			return none, err
		}
		result, err := k.do(ctx, r, func(ctx context.Context) (out outcome, err error) {
			if fresh, err = next(ctx, in); err != nil {
				return outcome{}, err
			}
			b, err := encode(fresh)
			if err != nil {
				k.log.Error("idempotency: the result does not encode, and is not kept", "name", r.Name, "error", err)
				return outcome{kind: notKept}, nil
			}
			return outcome{kind: value, bytes: b}, nil
		})
		switch {
		case err == nil && !result.Replayed, errors.Is(err, ErrUnknownOutcome), errors.Is(err, ErrLeaseLost):
			return fresh, err // whatever became of the record, this is what was done
		case err != nil:
			return none, err
		}
		if result.Value == nil {
			return none, permanent{about(r.Name, ErrNoResult)}
		}
		return decode[R](r.Name, result.Value)
	}
}

func encode(v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return append([]byte{}, v...), nil
	case json.RawMessage:
		return append([]byte{}, v...), nil
	default:
		return json.Marshal(v)
	}
}

func decode[R any](name Name, b []byte) (v R, err error) {
	switch p := any(&v).(type) {
	case *[]byte:
		*p = append([]byte{}, b...)
	case *json.RawMessage:
		*p = append([]byte{}, b...)
	default:
		if err := json.Unmarshal(b, &v); err != nil {
			return v, permanent{about(name, fmt.Errorf("idempotency: a result of another shape: %w", err))}
		}
	}
	return v, nil
}

// Latest makes a handler that brings a state up to date: it never runs for a version older than one that was begun, and for an equal one only if that has failed. It is for
// handlers that replace the whole state, as syncs do; where each event must act (an order's creation, a refund), use Once. The returned
// handler fails with ErrKey, permanently, if versionOf returns none or more than 64 bytes. Key.Payload is compared between calls of one version.
//
//	sync = idempotency.Latest(keeper, "sync", productKey, func(e webhook.Event[Product]) idempotency.Version {
//		return idempotency.Updated(e.UpdatedAt, e.TriggeredAt)
//	}, sync)
func Latest[T any](k *Keeper, op string, keyOf func(in T) Key, versionOf func(in T) Version, next func(ctx context.Context, in T) error) func(ctx context.Context, in T) error {
	return func(ctx context.Context, in T) error {
		r, err := NewRequest(op, keyOf(in), versionOf(in))
		if err != nil {
			return err
		}
		_, err = k.do(ctx, r, func(ctx context.Context) (outcome, error) {
			return outcome{kind: value}, next(ctx, in)
		})
		return err
	}
}
