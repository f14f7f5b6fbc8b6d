package shopifytest

import (
	"maps"
	"strings"
)

func customerMutations() map[string]mutation {
	return map[string]mutation{
		"customerCreate": func(x *execution, in *input, p *payload) (func(), error) {
			c := in.object("input")
			set := customerFields(x, c, p, nil)
			metafields := x.metafieldInputs(c, nil, p)
			return func() {
				o := x.shop.newCustomer(0)
				set(o)
				metafields(o)
				p.f["customer"] = o
				x.emit("customers/create", o)
			}, nil
		},
		"customerUpdate": func(x *execution, in *input, p *payload) (func(), error) {
			c := in.object("input")
			o := x.have(p, "Customer", c.id("id"), "Customer does not exist", "", "id")
			set := customerFields(x, c, p, o)
			metafields := x.metafieldInputs(c, o, p)
			return func() {
				set(o)
				metafields(o)
				p.f["customer"] = o
				x.changed(o)
			}, nil
		},
		"customerDelete": func(x *execution, in *input, p *payload) (func(), error) {
			o := x.have(p, "Customer", in.object("input").id("id"), "Customer can't be found", "", "id")
			if o != nil && len(x.shop.where("Order", "customer", o.id)) > 0 {
				p.reject("", "Customer can't be deleted because they have associated orders", "id")
			}
			return func() {
				x.shop.removeOwned(o)
				p.f["deletedCustomerId"] = string(o.id)
				x.emit("customers/delete", o)
			}, nil
		},
	}
}

// customerFields reads a CustomerInput.
func customerFields(x *execution, in *input, p *payload, old *object) func(*object) {
	set := map[string]any{}
	for _, name := range []string{"firstName", "lastName", "email", "phone", "note", "locale"} {
		if in.has(name) {
			v, _ := in.str(name)
			set[name] = orNil(v)
		}
	}
	if v, ok := in.bool("taxExempt"); ok {
		set["taxExempt"] = v
	}
	if in.has("tags") {
		set["tags"] = tags(in.strs("tags"))
	}
	if email, ok := set["email"].(string); ok {
		if !strings.Contains(email, "@") {
			p.reject("", "Email is invalid", "email")
		}
		if x.shop.taken("email", email, old) {
			p.reject("", "Email has already been taken", "email")
		}
	}
	if phone, ok := set["phone"].(string); ok && x.shop.taken("phone", phone, old) {
		p.reject("", "Phone has already been taken", "phone")
	}
	if in.has("addresses") {
		var all []*object
		for _, a := range in.list("addresses") {
			all = append(all, x.shop.address(a))
		}
		set["addressList"] = all
	}
	if old == nil && set["email"] == nil && set["phone"] == nil && set["firstName"] == nil && set["lastName"] == nil {
		p.reject("", "A name, phone number, or email address must be present")
	}
	return func(o *object) {
		maps.Copy(o.f, set)
	}
}
