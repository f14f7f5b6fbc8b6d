package cache

import (
	"fmt"
	"reflect"
	"strconv"
)

// Key names an entry outside of the process: in a [Remote], in invalidations, in errors.
type Key struct {
	Scope string // whose it is: the shop. InvalidateScope and Purge take all of one; may be empty
	ID    string // what it is, e.g. "product/788032119674292922"; any bytes
}

// String is the scope and the ID.
func (k Key) String() string {
	if k.Scope == "" {
		return strconv.Quote(k.ID)
	}
	return strconv.Quote(k.Scope + " " + k.ID)
}

// Keyer is a key type that knows its Key, so that Config.Key is not needed. Two keys that differ must have Keys that differ.
type Keyer interface{ CacheKey() Key }

// keyFunc is how a K becomes a Key, if nobody says it.
func keyFunc[K comparable]() (func(K) Key, error) {
	var zero K
	if _, ok := any(zero).(Keyer); ok {
		return func(k K) Key { return any(k).(Keyer).CacheKey() }, nil //nolint:forcetypeassert // as above
	}
	switch kind := reflect.TypeFor[K]().Kind(); kind { //nolint:exhaustive // others need a func
	case reflect.String:
		return func(k K) Key { return Key{ID: reflect.ValueOf(k).String()} }, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(k K) Key { return Key{ID: strconv.FormatInt(reflect.ValueOf(k).Int(), 10)} }, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return func(k K) Key { return Key{ID: strconv.FormatUint(reflect.ValueOf(k).Uint(), 10)} }, nil
	}
	return nil, fmt.Errorf("cache: New: how a %v becomes a Key is not known; set Config.Key, or give it a CacheKey method", reflect.TypeFor[K]())
}
