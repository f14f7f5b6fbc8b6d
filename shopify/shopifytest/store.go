package shopifytest

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// gid is a reference to an object, by its global ID.
type gid string

func newGID(typ string, id int64) gid {
	return gid("gid://shopify/" + typ + "/" + strconv.FormatInt(id, 10))
}

// parse takes a global ID apart. What follows a question mark is left out.
func (g gid) parse() (typ string, id int64, ok bool) {
	rest, ok := strings.CutPrefix(string(g), "gid://shopify/")
	if !ok {
		return "", 0, false
	}
	typ, number, ok := strings.Cut(rest, "/")
	number, _, _ = strings.Cut(number, "?")
	id, err := strconv.ParseInt(number, 10, 64)
	return typ, id, ok && err == nil && id > 0
}

// object is what a type's fields are read from: something with an ID, or a value within something.
type object struct {
	typ string
	id  gid            // "" for a value
	num int64          // of the ID
	f   map[string]any // by field: as it goes into an answer, or a gid, an *object, a []*object
}

func value(typ string, f map[string]any) *object { return &object{typ: typ, f: f} }

func (o *object) str(field string) string { s, _ := o.f[field].(string); return s }

func (o *object) int(field string) int { n, _ := o.f[field].(int); return n }

func (o *object) time(field string) time.Time { t, _ := o.f[field].(time.Time); return t }

// Shop is one shop of a Server: its state, and one bucket for each app.
type Shop struct {
	// Domain is the shop's, as in example.myshopify.com.
	Domain string

	server *Server

	mu      sync.Mutex
	objects map[gid]*object
	lists   map[string][]*object // by type, in the order of their IDs
	last    int64                // ID given
	ensured map[int64]bool       // IDs that somebody has chosen
	plan    Plan
	apps    map[string]*app
	outbox  []event
	stats   Stats
	orders  int // made so far, for their names
}

// Stats are what a shop has seen since it was made.
type Stats struct {
	Requests  int     // of both kinds
	Throttled int     // of these, those that found too little in the bucket
	Points    float64 // actually used by GraphQL requests
	Webhooks  int     // sent, or handed to OnWebhook
}

// app is what Shopify keeps for an app in a shop.
type app struct {
	id     string // a number, as in the namespace of its own metafields
	points bucket
	calls  bucket
	keys   map[string]keyed // of @idempotent
}

const firstID = 7_100_000_000_000 // IDs are given from here on, one counter for all types

func newShop(s *Server, domain string) *Shop {
	shop := &Shop{
		Domain: domain, server: s, objects: map[gid]*object{}, lists: map[string][]*object{}, last: firstID, ensured: map[int64]bool{}, plan: s.cfg.Plan, apps: map[string]*app{}, orders: 1000,
	}
	shop.seed()
	return shop
}

// add makes an object with an ID of its own.
func (s *Shop) add(typ string, f map[string]any) *object {
	return s.put(typ, s.nextID(), f)
}

// nextID is an ID that no object has. Ensure may have been ahead.
func (s *Shop) nextID() int64 {
	s.last++
	for s.ensured[s.last] {
		s.last++
	}
	return s.last
}

func (s *Shop) put(typ string, id int64, f map[string]any) *object {
	o := &object{typ: typ, id: newGID(typ, id), num: id, f: f}
	s.objects[o.id] = o
	list := s.lists[typ]
	i, _ := slices.BinarySearchFunc(list, id, func(o *object, id int64) int { return cmp.Compare(o.num, id) })
	s.lists[typ] = slices.Insert(list, i, o)
	return o
}

func (s *Shop) remove(o *object) {
	delete(s.objects, o.id)
	s.lists[o.typ] = slices.DeleteFunc(s.lists[o.typ], func(other *object) bool { return other == o })
}

// find is an object by its ID, nil if there is none.
func (s *Shop) find(id gid) *object { return s.objects[id] }

// where are the objects of a type that have something in a field.
func (s *Shop) where(typ, field string, is any) []*object {
	var found []*object
	for _, o := range s.lists[typ] {
		if o.f[field] == is {
			found = append(found, o)
		}
	}
	return found
}

// touch notes that an object has changed.
func (s *Shop) touch(o *object) { o.f["updatedAt"] = now() }

// now is the time as Shopify keeps it, to the second.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// stamps are the fields of what is made now.
func stamps(f map[string]any) map[string]any {
	f["createdAt"], f["updatedAt"] = now(), now()
	return f
}

// Ensure makes a plain object with the given ID, such as gid://shopify/Product/123, if there is none: a test's own data has IDs of its own. What it belongs to is made
// too, a variant's product for example.
//
// It fails if the fake has no objects of that type.
func (s *Shop) Ensure(id string) error {
	typ, n, ok := gid(id).parse()
	if !ok {
		return fmt.Errorf("shopifytest: Ensure: %q is no ID such as gid://shopify/Product/123", id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.find(newGID(typ, n)) != nil {
		return nil
	}
	s.ensured[n] = true
	number := strconv.FormatInt(n, 10)
	switch typ {
	case "Product":
		s.newProduct(n, "Product "+number)
	case "ProductVariant":
		p := s.newProduct(0, "Product of "+number)
		s.removeVariant(s.variants(p)[0])
		s.newVariant(n, p, nil)
	case "InventoryItem":
		p := s.newProduct(0, "Product of "+number)
		v := s.variants(p)[0]
		item := s.find(v.f["inventoryItem"].(gid))
		s.remove(item)
		v.f["inventoryItem"] = s.put(typ, n, item.f).id
		for _, level := range s.where("InventoryLevel", "item", item.id) {
			level.f["item"] = v.f["inventoryItem"]
		}
	case "Customer":
		s.newCustomer(n)
	case "Order":
		s.newOrder(n)
	case "Location":
		s.newLocation(n, "Location "+number)
	default:
		return fmt.Errorf("shopifytest: Ensure: the fake has no objects of type %s that stand alone", typ)
	}
	return nil
}
