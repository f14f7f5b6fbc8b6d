package shopifytest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

func customerKinds() map[string]kind {
	return map[string]kind{
		"Customer": {
			plain: map[string]any{
				"firstName": nil, "lastName": nil, "note": nil, "tags": []string{}, "createdAt": nil, "updatedAt": nil, "locale": "en", "state": "DISABLED", "taxExempt": false, "taxExemptions": []any{}, "verifiedEmail": true,
				"multipassIdentifier": nil, "email": nil, "phone": nil, "dataSaleOptOut": false, "productSubscriberStatus": "NEVER_SUBSCRIBED", "companyContactProfiles": []any{},
			},
			computed: owned(map[string]resolver{
				"displayName": func(_ *execution, o *object, _ *input) (any, error) { return displayName(o), nil },
				"defaultEmailAddress": func(_ *execution, o *object, _ *input) (any, error) {
					if e := o.str("email"); e != "" {
						return value("CustomerEmailAddress", map[string]any{"emailAddress": e}), nil
					}
					return nil, nil
				},
				"defaultPhoneNumber": func(_ *execution, o *object, _ *input) (any, error) {
					if p := o.str("phone"); p != "" {
						return value("CustomerPhoneNumber", map[string]any{"phoneNumber": p}), nil
					}
					return nil, nil
				},
				"addresses": func(_ *execution, o *object, in *input) (any, error) {
					all, _ := o.f["addressList"].([]*object)
					if n, ok := in.int("first"); ok && n >= 0 {
						all = all[:min(n, len(all))]
					}
					return all, nil
				},
				"addressesV2": func(_ *execution, o *object, in *input) (any, error) {
					all, _ := o.f["addressList"].([]*object)
					return &conn{items: all, in: in}, nil
				},
				"defaultAddress": func(_ *execution, o *object, _ *input) (any, error) {
					if all, _ := o.f["addressList"].([]*object); len(all) > 0 {
						return all[0], nil
					}
					return nil, nil
				},
				"orders": func(x *execution, o *object, in *input) (any, error) {
					items, err := filter(x.shop, "Order", x.shop.where("Order", "customer", o.id), in)
					if err != nil {
						return nil, err
					}
					key, _ := in.str("sortKey")
					by, ok := sorts["Order"][cmp.Or(key, "ID")]
					if !ok {
						return nil, unsupported("the sort key %s of a customer's orders", key)
					}
					return &conn{items: items, by: by, in: in}, nil
				},
				"lastOrder": func(x *execution, o *object, _ *input) (any, error) {
					if all := x.shop.where("Order", "customer", o.id); len(all) > 0 {
						return all[len(all)-1], nil
					}
					return nil, nil
				},
				"numberOfOrders": func(x *execution, o *object, _ *input) (any, error) {
					return fmt.Sprint(len(x.shop.where("Order", "customer", o.id))), nil
				},
				"amountSpent": func(x *execution, o *object, _ *input) (any, error) {
					var sum int64
					for _, order := range x.shop.where("Order", "customer", o.id) {
						if order.str("displayFinancialStatus") == "PAID" {
							sum += total(order)
						}
					}
					return x.shop.money(decimal(sum)), nil
				},
				"canDelete": func(x *execution, o *object, _ *input) (any, error) {
					return len(x.shop.where("Order", "customer", o.id)) == 0, nil
				},
				"storeCreditAccounts": nothing, "subscriptionContracts": nothing, "paymentMethods": nothing,
			}),
		},
		"CustomerEmailAddress": {plain: stored("emailAddress")},
		"CustomerPhoneNumber":  {plain: stored("phoneNumber")},
		"MailingAddress": {
			plain: stored("address1 address2 city company country countryCodeV2 firstName lastName province provinceCode zip phone latitude longitude"),
			computed: map[string]resolver{
				"name": func(_ *execution, o *object, _ *input) (any, error) {
					return orNil(strings.TrimSpace(o.str("firstName") + " " + o.str("lastName"))), nil
				},
				"coordinatesValidated": func(*execution, *object, *input) (any, error) { return false, nil },
			},
		},
	}
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func displayName(o *object) string {
	return cmp.Or(strings.TrimSpace(o.str("firstName")+" "+o.str("lastName")), o.str("email"), o.str("phone"))
}

// newCustomer makes a customer. An id of 0 is the next.
func (s *Shop) newCustomer(id int64) *object {
	if id == 0 {
		id = s.nextID()
	}
	return s.put("Customer", id, stamps(map[string]any{"state": "DISABLED"}))
}

// address reads a MailingAddressInput.
func (s *Shop) address(in *input) *object {
	if in == nil {
		return nil
	}
	f := map[string]any{}
	for _, name := range []string{"address1", "address2", "city", "company", "country", "firstName", "lastName", "province", "provinceCode", "zip", "phone"} {
		if v, ok := in.str(name); ok {
			f[name] = v
		}
	}
	if c, ok := in.str("countryCode"); ok {
		f["countryCodeV2"] = c
		if f["country"] == nil {
			f["country"] = c
		}
	}
	s.last++
	a := value("MailingAddress", f)
	a.num, a.id = s.last, newGID("MailingAddress", s.last)
	return a
}

// taken is a customer with that email address or phone, other than one.
func (s *Shop) taken(field, v string, other *object) bool {
	return v != "" && slices.ContainsFunc(s.where("Customer", field, v), func(o *object) bool { return o != other })
}

func customerByIdentifier(x *execution, _ *object, in *input) (any, error) {
	by := in.object("identifier")
	if id, ok := by.str("id"); ok {
		return typed("Customer", gid(id))
	}
	for arg, field := range map[string]string{"emailAddress": "email", "phoneNumber": "phone"} {
		if v, ok := by.str(arg); ok {
			if found := x.shop.where("Customer", field, v); len(found) > 0 {
				return found[0], nil
			}
		}
	}
	return nil, nil
}
