package shopifytest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vektah/gqlparser/v2/ast"
)

// mutation reads its input and checks it. What it returns makes the change; that is called if all of the input was read and nothing was rejected.
type mutation func(x *execution, in *input, p *payload) (apply func(), err error)

// payload is what a mutation answers.
type payload struct {
	*object
	rejected []*object
	def      *ast.Definition
}

// reject notes a user error. field is the path of the input that it is about, none if it is about nothing of it; code is left out where the API has none.
func (p *payload) reject(code, message string, field ...string) {
	errorType := "UserError"
	for _, name := range []string{"userErrors", p.errorField()} {
		if d := p.def.Fields.ForName(name); d != nil {
			errorType = d.Type.Name()
		}
	}
	var path any
	if field != nil {
		path = field
	}
	p.rejected = append(p.rejected, value(errorType, map[string]any{"field": path, "message": message, "code": code}))
}

// errorField is where a payload has its errors.
func (p *payload) errorField() string {
	for _, d := range p.def.Fields {
		if strings.HasSuffix(d.Name, "UserErrors") {
			return d.Name
		}
	}
	return "userErrors"
}

// keyed is what an idempotency key has led to.
type keyed struct {
	fingerprint string
	payload     *payload
	until       time.Time
}

// keyRetention is how long a key is remembered (reported of shopify.dev's "implementing idempotency").
const keyRetention = 24 * time.Hour

// takesKey says whether a mutation takes @idempotent, and from which version on it has to be there: those whose description in the schema says so.
func takesKey(name string) (takes bool, required string) {
	switch name {
	case "appUsageRecordCreate", "inventorySetScheduledChanges", "orderCreateMandatePayment", "subscriptionBillingAttemptCreate":
		return true, ""
	case "inventoryActivate", "inventoryAdjustQuantities", "inventoryMoveQuantities", "inventorySetOnHandQuantities", "inventorySetQuantities", "inventoryShipmentAddItems", "inventoryShipmentCreate",
		"inventoryShipmentCreateInTransit", "inventoryShipmentReceive", "inventoryTransferCreate", "inventoryTransferCreateAsReadyToShip", "inventoryTransferDuplicate", "inventoryTransferSetItems", "locationActivate",
		"locationDeactivate", "refundCreate":
		return true, "2026-04"
	}
	return false, ""
}

func (x *execution) mutate(f *ast.Field, in *input) (any, error) {
	run := mutations()[f.Name]
	if run == nil {
		return nil, unsupported("the mutation %s", f.Name)
	}
	takes, required := takesKey(f.Name)
	key := ""
	if d := f.Directives.ForName("idempotent"); d != nil {
		key, _ = d.ArgumentMap(x.vars)["key"].(string)
		switch {
		case strings.TrimSpace(key) == "":
			return nil, coded("BAD_REQUEST", "The idempotency key cannot be an empty string or whitespace only.")
		case !takes:
			return nil, unsupported("@idempotent on %s, whose documentation does not mention it", f.Name)
		}
	} else if required != "" && x.version >= required {
		return nil, coded("BAD_REQUEST", "The @idempotent directive is required for this mutation but was not provided.")
	}
	def := x.schema.Types[f.Definition.Type.Name()]
	p := &payload{object: value(def.Name, map[string]any{"shop": x.shop.lists["Shop"][0]}), def: def}
	fingerprint := ""
	if key != "" {
		b, err := json.Marshal(in.m)
		if err != nil {
			return nil, err
		}
		fingerprint = f.Name + string(b)
		if old, ok := x.app.keys[key]; ok && time.Now().Before(old.until) {
			if old.fingerprint == fingerprint {
				return old.payload.object, nil
			}
			p.reject("IDEMPOTENCY_KEY_PARAMETER_MISMATCH", "The same idempotency key cannot be used with different operation parameters.")
			return p.answer(), nil
		}
	}
	apply, err := run(x, in, p)
	if err != nil {
		return nil, err
	}
	if unread := in.unread(); unread != "" && len(p.rejected) == 0 {
		return nil, unsupported("the input %s of %s", unread, f.Name)
	}
	if len(p.rejected) == 0 {
		apply()
		if key != "" {
			maps.DeleteFunc(x.app.keys, func(_ string, k keyed) bool { return !time.Now().Before(k.until) })
			x.app.keys[key] = keyed{fingerprint, p, time.Now().Add(keyRetention)}
		}
	}
	return p.answer(), nil
}

// answer is the payload with every field that its type has: null where nothing was said.
func (p *payload) answer() *object {
	for _, d := range p.def.Fields {
		if _, ok := p.f[d.Name]; !ok && !d.Type.NonNull {
			p.f[d.Name] = nil
		}
	}
	errs := p.rejected
	if errs == nil {
		errs = []*object{}
	}
	p.f["userErrors"], p.f[p.errorField()] = errs, errs
	return p.object
}

// scopeOf is the access scope that a type is read with, as it follows "read_".
var scopeOf = map[string]string{
	"Product": "products", "ProductVariant": "products", "InventoryItem": "inventory", "InventoryLevel": "inventory", "Location": "locations", "Order": "orders", "LineItem": "orders", "Customer": "customers",
}

// access checks the app's scopes, where they are limited.
func (x *execution) access(parent string, f *ast.Field) error {
	if x.scopes == nil {
		return nil
	}
	typ := strings.TrimSuffix(f.Definition.Type.Name(), "Connection")
	verb := "read_"
	if parent == "Mutation" {
		verb, typ = "write_", ""
		for t := range scopeOf {
			if strings.HasPrefix(f.Name, strings.ToLower(t[:1])+t[1:]) {
				typ = t
			}
		}
		if strings.HasPrefix(f.Name, "inventory") {
			typ = "InventoryItem"
		}
	}
	scope, ok := scopeOf[typ]
	if !ok || x.granted(verb, scope) {
		return nil
	}
	return denied(f.Name, verb, scope)
}

// mayChange checks the scope of a mutation that is told by the object, not by its name.
func (x *execution) mayChange(o *object, p *payload) error {
	scope, ok := scopeOf[o.typ]
	if !ok || x.granted("write_", scope) {
		return nil
	}
	return denied(strings.ToLower(p.typ[:1])+strings.TrimSuffix(p.typ[1:], "Payload"), "write_", scope)
}

func (x *execution) granted(verb, scope string) bool { return granted(x.scopes, verb, scope) }

// granted says whether an app has a scope; one to write is one to read, and nil is every one.
func granted(scopes []string, verb, scope string) bool {
	return scopes == nil || slices.Contains(scopes, verb+scope) || slices.Contains(scopes, "write_"+scope)
}

func denied(field, verb, scope string) *gqlError {
	e := coded("ACCESS_DENIED", "Access denied for %s field. Required access: `%s%s` access scope.", field, verb, scope)
	e.Extensions["documentation"] = "https://shopify.dev/api/usage/access-scopes"
	e.Extensions["requiredAccess"] = "`" + verb + scope + "` access scope."
	return e
}

// have finds an object of a type by an input's ID, and rejects one that is not there.
func (x *execution) have(p *payload, typ string, id gid, message, code string, field ...string) *object {
	if t, n, ok := id.parse(); ok && t == typ {
		if o := x.shop.find(newGID(t, n)); o != nil {
			return o
		}
	}
	p.reject(code, message, field...)
	return nil
}

func otherMutations() map[string]mutation {
	return map[string]mutation{"metafieldsSet": metafieldsSet, "metafieldsDelete": metafieldsDelete, "tagsAdd": changeTags, "tagsRemove": changeTags}
}

// digest is what compareDigest compares.
func digest(m *object) string {
	sum := sha256.Sum256([]byte(m.str("type") + "\x00" + m.str("value")))
	return hex.EncodeToString(sum[:])
}

// ownerTypes are the owners of metafields, as MetafieldOwnerType has them.
var ownerTypes = map[string]string{"Product": "PRODUCT", "ProductVariant": "PRODUCTVARIANT", "Order": "ORDER", "Customer": "CUSTOMER", "Location": "LOCATION", "Shop": "SHOP"}

// maxMetafields is how many one call of metafieldsSet takes (its documentation).
const maxMetafields = 25

func metafieldsSet(x *execution, in *input, p *payload) (func(), error) {
	all := in.list("metafields")
	if len(all) > maxMetafields {
		p.reject("LESS_THAN_OR_EQUAL_TO", "Exceeded the maximum metafields input limit of 25.", "metafields")
		return nil, nil
	}
	var sets []func() *object
	for i, m := range all {
		at := []string{"metafields", itoa(i)}
		owner := x.shop.find(m.id("ownerId"))
		if owner == nil || ownerTypes[owner.typ] == "" {
			p.reject("INVALID", "Owner does not exist.", append(at, "ownerId")...)
			continue
		}
		if err := x.mayChange(owner, p); err != nil {
			return nil, err
		}
		set := x.metafield(m, owner, p, at)
		sets = append(sets, set)
	}
	return func() {
		var made []*object
		for _, set := range sets {
			m := set()
			made = append(made, m)
			x.changed(x.shop.find(m.f["owner"].(gid)))
		}
		p.f["metafields"] = made
	}, nil
}

// metafield reads a metafield's input. What it returns makes or changes it.
func (x *execution) metafield(in *input, owner *object, p *payload, at []string) func() *object {
	namespace, _ := in.str("namespace")
	namespace = x.namespace(namespace)
	key, _ := in.str("key")
	typ, _ := in.str("type")
	v, _ := in.str("value")
	var old *object
	if owner != nil {
		old = x.shop.metafield(owner.id, namespace, key)
	}
	switch {
	case key == "":
		p.reject("BLANK", "Key can't be blank", append(at, "key")...)
	case typ == "" && old == nil:
		p.reject("BLANK", "Type can't be blank", append(at, "type")...)
	case v == "":
		p.reject("BLANK", "Value can't be blank", append(at, "value")...)
	case old != nil && typ != "" && typ != old.str("type"):
		p.reject("INVALID_TYPE", "Type must be consistent with the definition's type: "+old.str("type"), append(at, "type")...)
	}
	if in.has("compareDigest") {
		want, _ := in.str("compareDigest")
		if have := ""; old != nil || want != "" {
			if old != nil {
				have = digest(old)
			}
			if want != have {
				p.reject("STALE_OBJECT", "The resource has been updated since it was loaded. Try again with an updated `compareDigest` value.", at...)
			}
		}
	}
	return func() *object {
		if old = x.shop.metafield(owner.id, namespace, key); old == nil { // the same call may have made it
			return x.shop.add("Metafield", stamps(map[string]any{"namespace": namespace, "key": key, "type": typ, "value": v, "owner": owner.id, "ownerType": ownerTypes[owner.typ]}))
		}
		old.f["value"] = v
		x.shop.touch(old)
		return old
	}
}

// metafieldInputs reads the metafields of something that is to be made or changed.
func (x *execution) metafieldInputs(in *input, owner *object, p *payload) func(*object) {
	var all []*input
	if all = in.list("metafields"); all == nil {
		return func(*object) {}
	}
	var made []func(*object)
	for i, m := range all {
		at := []string{"metafields", itoa(i)}
		if id, ok := m.str("id"); ok {
			old := x.have(p, "Metafield", gid(id), "Metafield does not exist", "INVALID", append(at, "id")...)
			if old != nil && (owner == nil || old.f["owner"] != owner.id) {
				p.reject("INVALID", "Metafield does not belong to the resource", append(at, "id")...)
			}
			v, _ := m.str("value")
			made = append(made, func(*object) { old.f["value"] = v; x.shop.touch(old) })
			continue
		}
		set := x.metafield(m, owner, p, at)
		made = append(made, func(o *object) { m := set(); m.f["owner"], m.f["ownerType"] = o.id, ownerTypes[o.typ] })
		if owner == nil { // it gets one when it is made
			made[len(made)-1] = func(o *object) { x.metafield(m, o, p, at)() }
		}
	}
	return func(o *object) {
		for _, f := range made {
			f(o)
		}
	}
}

func metafieldsDelete(x *execution, in *input, p *payload) (func(), error) {
	var gone, shown []*object
	for _, m := range in.list("metafields") {
		owner := m.id("ownerId")
		namespace, _ := m.str("namespace")
		key, _ := m.str("key")
		old := x.shop.metafield(owner, namespace, key)
		if old == nil {
			shown = append(shown, nil)
			continue
		}
		if o := x.shop.find(owner); o != nil {
			if err := x.mayChange(o, p); err != nil {
				return nil, err
			}
		}
		gone = append(gone, old)
		shown = append(shown, value("MetafieldIdentifier", map[string]any{"ownerId": string(owner), "namespace": namespace, "key": key}))
	}
	return func() {
		for _, m := range gone {
			x.shop.remove(m)
			if o := x.shop.find(m.f["owner"].(gid)); o != nil {
				x.changed(o)
			}
		}
		p.f["deletedMetafields"] = shown
	}, nil
}

func changeTags(x *execution, in *input, p *payload) (func(), error) {
	id := in.id("id")
	list := tags(in.strs("tags"))
	o := x.shop.find(id)
	if o == nil || (o.typ != "Product" && o.typ != "Order" && o.typ != "Customer") {
		p.reject("", "Node does not exist", "id")
		return nil, nil
	}
	if err := x.mayChange(o, p); err != nil {
		return nil, err
	}
	return func() {
		old, _ := o.f["tags"].([]string)
		if p.typ == "TagsAddPayload" {
			o.f["tags"] = tags(slices.Concat(old, list))
		} else {
			o.f["tags"] = slices.DeleteFunc(slices.Clone(old), func(t string) bool { return slices.Contains(list, t) })
		}
		x.changed(o)
		p.f["node"] = o
	}, nil
}
