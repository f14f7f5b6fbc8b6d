package idempotency

import "context"

// Outcome is what a [Record] that is done says of how it ended.
type Outcome struct {
	Value   []byte // what the work returned; nil if it has no result, or none that was kept
	Failure string // the text of the permanent error it ended with; "" if it succeeded
}

// Outcome reads the record's result.
func (rec *Record) Outcome() Outcome {
	if len(rec.Result) == 0 {
		return Outcome{}
	}
	switch kind(rec.Result[0]) {
	case value:
		return Outcome{Value: rec.Result[1:]}
	case failure:
		return Outcome{Failure: string(rec.Result[1:])}
	case notKept:
	}
	return Outcome{}
}

// Inspect reads what is known of an operation on a key. It fails with ErrNoRecord.
func (k *Keeper) Inspect(ctx context.Context, op string, key Key) (Record, error) {
	name, err := key.name(op)
	if err != nil {
		return Record{}, err
	}
	if k.operator == nil {
		return Record{}, ErrNoOperator
	}
	return k.operator.Inspect(ctx, name)
}

// Forget makes a record, as Inspect has shown it, as if it had never been: the next call runs. It is for an outcome that is not known and turned out not to
// be, and before a dead letter is replayed that has failed for good. It fails with ErrInProgress while the key is held, and with ErrChanged if the record is another by now.
func (k *Keeper) Forget(ctx context.Context, seen Record) error {
	if k.operator == nil {
		return ErrNoOperator
	}
	return k.operator.Resolve(ctx, seen, Resolution{Forget: true})
}

// Resolve records what a holder that ended without a word has done after all: later calls get value, if it is not nil. It fails as Forget does.
func (k *Keeper) Resolve(ctx context.Context, seen Record, v []byte) error {
	if k.operator == nil {
		return ErrNoOperator
	}
	out := outcome{kind: value, bytes: v}
	return k.operator.Resolve(ctx, seen, Resolution{Result: out.record(), Retention: k.cfg.Retention})
}

// Purge removes all that is known of a scope: what shop/redact asks for. Work that runs in it loses its lease. It answers how many records there were. What the shop sends after that is
// new.
func (k *Keeper) Purge(ctx context.Context, scope string) (int, error) {
	if k.operator == nil {
		return 0, ErrNoOperator
	}
	return k.operator.Purge(ctx, scope)
}
