package shopifytest

import (
	"maps"
	"time"
)

func orderMutations() map[string]mutation {
	byInput := func(change func(x *execution, o *object, p *payload)) mutation {
		return func(x *execution, in *input, p *payload) (func(), error) {
			o := x.have(p, "Order", in.object("input").id("id"), "Order does not exist", "", "id")
			return func() {
				change(x, o, p)
				p.f["order"] = o
			}, nil
		}
	}
	return map[string]mutation{
		"orderCreate": orderCreate,
		"orderUpdate": func(x *execution, in *input, p *payload) (func(), error) {
			c := in.object("input")
			o := x.have(p, "Order", c.id("id"), "Order does not exist", "", "id")
			set := map[string]any{}
			for _, name := range []string{"email", "note", "phone", "poNumber"} {
				if c.has(name) {
					v, _ := c.str(name)
					set[name] = orNil(v)
				}
			}
			if c.has("tags") {
				set["tags"] = tags(c.strs("tags"))
			}
			if a := x.shop.address(c.object("shippingAddress")); a != nil {
				set["shippingAddress"] = a
			}
			if c.has("customAttributes") {
				set["customAttributes"] = attributes(c.list("customAttributes"))
			}
			metafields := x.metafieldInputs(c, o, p)
			return func() {
				maps.Copy(o.f, set)
				metafields(o)
				p.f["order"] = o
				x.changed(o)
			}, nil
		},
		"orderClose": byInput(func(x *execution, o *object, _ *payload) { o.f["closed"], o.f["closedAt"] = true, now(); x.changed(o) }),
		"orderOpen":  byInput(func(x *execution, o *object, _ *payload) { o.f["closed"], o.f["closedAt"] = false, nil; x.changed(o) }),
		"orderMarkAsPaid": func(x *execution, in *input, p *payload) (func(), error) {
			o := x.have(p, "Order", in.object("input").id("id"), "Order does not exist", "", "id")
			if o != nil && (o.str("displayFinancialStatus") == "PAID" || !o.time("cancelledAt").IsZero()) {
				p.reject("", "Order cannot be marked as paid.", "id")
			}
			return func() {
				o.f["displayFinancialStatus"] = "PAID"
				p.f["order"] = o
				x.changed(o)
				x.emit("orders/paid", o)
			}, nil
		},
		"orderCancel": func(x *execution, in *input, p *payload) (func(), error) {
			o := x.have(p, "Order", in.id("orderId"), "Order does not exist", "NOT_FOUND", "orderId")
			reason, _ := in.str("reason")
			restock, _ := in.bool("restock")
			in.bool("notifyCustomer")
			in.str("staffNote")
			if o != nil && !o.time("cancelledAt").IsZero() {
				p.reject("INVALID", "Order has already been cancelled", "orderId")
			}
			return func() {
				o.f["cancelledAt"], o.f["cancelReason"], o.f["closed"], o.f["closedAt"] = now(), reason, true, now()
				if o.str("displayFinancialStatus") != "PAID" {
					o.f["displayFinancialStatus"] = "VOIDED"
				}
				if restock {
					x.claimStock(o, -1)
				}
				p.f["job"] = x.shop.add("Job", map[string]any{"done": true})
				x.changed(o)
				x.emit("orders/cancelled", o)
			}, nil
		},
		"orderDelete": func(x *execution, in *input, p *payload) (func(), error) {
			o := x.have(p, "Order", in.id("orderId"), "Order does not exist", "NOT_FOUND", "orderId")
			return func() {
				for _, l := range x.shop.where("LineItem", "order", o.id) {
					x.shop.remove(l)
				}
				x.shop.removeOwned(o)
				p.f["deletedId"] = string(o.id)
				x.emit("orders/delete", o)
			}, nil
		},
	}
}

// attributes reads pairs of key and value.
func attributes(in []*input) []*object {
	out := []*object{}
	for _, a := range in {
		k, _ := a.str("key")
		v, _ := a.str("value")
		out = append(out, value("Attribute", map[string]any{"key": k, "value": v}))
	}
	return out
}

// claimStock moves what an order has ordered from available to committed, at the first location that stocks it; back again with a sign of -1.
func (x *execution) claimStock(o *object, sign int) {
	if o.f["claimed"] != true && sign < 0 {
		return
	}
	o.f["claimed"] = sign > 0
	for _, line := range x.shop.where("LineItem", "order", o.id) {
		id, _ := line.f["variant"].(gid)
		v := x.shop.find(id)
		if v == nil || !x.shop.tracked(v) {
			continue
		}
		if all := x.shop.where("InventoryLevel", "item", v.f["inventoryItem"]); len(all) > 0 {
			n := sign * line.int("quantity")
			x.shop.setQuantity(all[0], "available", all[0].quantity("available")-n)
			x.shop.setQuantity(all[0], "committed", all[0].quantity("committed")+n)
			x.emit("inventory_levels/update", all[0])
		}
	}
}

// line is a line item that is to be made.
type line struct {
	f        map[string]any
	variant  *object
	quantity int
}

func orderCreate(x *execution, in *input, p *payload) (func(), error) {
	c := in.object("order")
	set := map[string]any{}
	for arg, field := range map[string]string{
		"email": "email", "phone": "phone", "note": "note", "poNumber": "poNumber", "sourceName": "sourceName", "sourceIdentifier": "sourceIdentifier", "name": "name", "financialStatus": "displayFinancialStatus",
	} {
		if v, ok := c.str(arg); ok {
			set[field] = v
		}
	}
	if v, ok := c.str("fulfillmentStatus"); ok {
		set["displayFulfillmentStatus"] = map[string]string{"FULFILLED": "FULFILLED", "PARTIAL": "PARTIALLY_FULFILLED", "RESTOCKED": "RESTOCKED"}[v]
	}
	for arg, field := range map[string]string{"processedAt": "processedAt", "closedAt": "closedAt"} {
		if v, ok := c.str(arg); ok {
			t, err := time.Parse(time.RFC3339, v)
			if err != nil {
				p.reject("PROCESSED_AT_INVALID", "Processed at is invalid", "order", arg)
			}
			set[field] = t.UTC()
		}
	}
	if _, ok := set["closedAt"]; ok {
		set["closed"] = true
	}
	for _, name := range []string{"test", "taxesIncluded"} {
		if v, ok := c.bool(name); ok {
			set[name] = v
		}
	}
	if c.has("tags") {
		set["tags"] = tags(c.strs("tags"))
	}
	set["customAttributes"] = attributes(c.list("customAttributes"))
	for _, name := range []string{"shippingAddress", "billingAddress"} {
		if a := x.shop.address(c.object(name)); a != nil {
			set[name] = a
		}
	}
	currency := x.shop.lists["Shop"][0].str("currencyCode")
	for _, name := range []string{"currency", "presentmentCurrency"} {
		if v, ok := c.str(name); ok && v != currency {
			return nil, unsupported("orders in %s; the shop's currency is %s", v, currency)
		}
	}
	var lines []line
	for i, l := range c.list("lineItems") {
		lines = append(lines, x.readLine(l, p, []string{"order", "lineItems", itoa(i)}))
	}
	if len(lines) == 0 {
		p.reject("INVALID", "Line items must have at least one line item", "order", "lineItems")
	}
	var shippingLines []*object
	var shippingCents int64
	for i, l := range c.list("shippingLines") {
		title, _ := l.str("title")
		code, _ := l.str("code")
		source, _ := l.str("source")
		amount := x.amount(l.object("priceSet"), p, []string{"order", "shippingLines", itoa(i), "priceSet"})
		shippingCents += amount
		bag := x.shop.bag(decimal(amount))
		shippingLines = append(shippingLines, value("ShippingLine", map[string]any{
			"title": title, "code": orNil(code), "source": orNil(source), "originalPriceSet": bag, "discountedPriceSet": bag, "currentDiscountedPriceSet": bag,
		}))
	}
	customer := x.orderCustomer(c, p)
	claim := false
	if o := in.object("options"); o != nil {
		o.bool("sendReceipt")
		o.bool("sendFulfillmentReceipt")
		behaviour, _ := o.str("inventoryBehaviour")
		claim = behaviour == "DECREMENT_IGNORING_POLICY" || behaviour == "DECREMENT_OBEYING_POLICY"
		for i, l := range lines {
			if behaviour == "DECREMENT_OBEYING_POLICY" && l.variant != nil && x.shop.tracked(l.variant) && l.variant.str("inventoryPolicy") != "CONTINUE" && x.shop.available(l.variant) < l.quantity {
				p.reject("INVENTORY_CLAIM_FAILED", "Unable to reserve inventory", "order", "lineItems", itoa(i))
			}
		}
	}
	metafields := x.metafieldInputs(c, nil, p)
	return func() {
		o := x.shop.newOrder(0)
		maps.Copy(o.f, set)
		if who := customer(); who != nil {
			o.f["customer"] = who.id
			if o.f["email"] == nil {
				o.f["email"] = who.f["email"]
			}
		}
		var sum int64
		for _, l := range lines {
			l.f["order"] = o.id
			sum += lineTotal(x.shop.add("LineItem", l.f))
		}
		o.f["subtotalCents"], o.f["shippingCents"], o.f["shippingLineList"] = sum, shippingCents, shippingLines
		if len(shippingLines) > 0 {
			o.f["shippingLine"] = shippingLines[0]
		}
		metafields(o)
		if claim {
			x.claimStock(o, 1)
		}
		p.f["order"] = o
		x.emit("orders/create", o)
		if o.str("displayFinancialStatus") == "PAID" {
			x.emit("orders/paid", o)
		}
	}, nil
}

func (x *execution) readLine(in *input, p *payload, at []string) line {
	n, _ := in.int("quantity")
	if n < 1 {
		p.reject("INVALID", "Quantity must be greater than 0", append(at, "quantity")...)
	}
	f := map[string]any{"quantity": n, "requiresShipping": true}
	l := line{f: f, quantity: n}
	if id, ok := in.str("variantId"); ok {
		if l.variant = x.have(p, "ProductVariant", gid(id), "Variant does not exist", "INVALID", append(at, "variantId")...); l.variant != nil {
			product := x.shop.find(l.variant.f["product"].(gid))
			f["variant"], f["product"], f["title"], f["sku"], f["vendor"] = l.variant.id, product.id, product.str("title"), l.variant.f["sku"], product.str("vendor")
			if t := l.variant.str("title"); t != defaultTitle {
				f["variantTitle"] = t
			}
			f["cents"], _ = cents(l.variant.str("price"))
		}
	} else if id, ok := in.str("productId"); ok {
		if product := x.have(p, "Product", gid(id), "Product does not exist", "INVALID", append(at, "productId")...); product != nil {
			f["product"], f["title"], f["vendor"] = product.id, product.str("title"), product.str("vendor")
		}
	}
	for _, name := range []string{"title", "sku", "vendor", "variantTitle"} {
		if v, ok := in.str(name); ok {
			f[name] = v
		}
	}
	if f["title"] == nil {
		p.reject("INVALID", "Title can't be blank", append(at, "title")...)
	}
	f["name"] = f["title"]
	if t, ok := f["variantTitle"].(string); ok {
		f["name"] = f["title"].(string) + " - " + t
	}
	for arg, field := range map[string]string{"requiresShipping": "requiresShipping", "taxable": "taxable", "giftCard": "isGiftCard"} {
		if v, ok := in.bool(arg); ok {
			f[field] = v
		}
	}
	if in.has("priceSet") {
		f["cents"] = x.amount(in.object("priceSet"), p, append(at, "priceSet"))
	}
	var props []*object
	for _, a := range in.list("properties") {
		k, _ := a.str("name")
		v, _ := a.str("value")
		props = append(props, value("Attribute", map[string]any{"key": k, "value": v}))
	}
	if props != nil {
		f["customAttributes"] = props
	}
	return l
}

// amount reads a MoneyBagInput of the shop's currency.
func (x *execution) amount(in *input, p *payload, at []string) int64 {
	money := in.object("shopMoney")
	in.object("presentmentMoney") // the same currency
	v, _ := money.str("amount")
	currency, _ := money.str("currencyCode")
	c, ok := cents(v)
	if !ok || c < 0 {
		p.reject("INVALID", "Price must be a number of at least 0", append(at, "shopMoney", "amount")...)
	}
	if want := x.shop.lists["Shop"][0].str("currencyCode"); currency != want {
		p.reject("INVALID", "Currency must be the shop's, "+want, append(at, "shopMoney", "currencyCode")...)
	}
	return c
}

// orderCustomer finds or makes an order's customer.
func (x *execution) orderCustomer(in *input, p *payload) func() *object {
	none := func() *object { return nil }
	found := func(id gid, field ...string) func() *object {
		o := x.have(p, "Customer", id, "Customer does not exist", "INVALID", field...)
		return func() *object { return o }
	}
	if id, ok := in.str("customerId"); ok {
		return found(gid(id), "order", "customerId")
	}
	c := in.object("customer")
	if c == nil {
		return none
	}
	if a := c.object("toAssociate"); a != nil {
		if id, ok := a.str("id"); ok {
			return found(gid(id), "order", "customer", "toAssociate", "id")
		}
		return none
	}
	u := c.object("toUpsert")
	set := map[string]any{}
	for _, name := range []string{"email", "phone", "firstName", "lastName", "note"} {
		if v, ok := u.str(name); ok {
			set[name] = v
		}
	}
	if u.has("tags") {
		set["tags"] = tags(u.strs("tags"))
	}
	var old *object
	if id, ok := u.str("id"); ok {
		old = x.have(p, "Customer", gid(id), "Customer does not exist", "INVALID", "order", "customer", "toUpsert", "id")
	}
	for _, field := range []string{"email", "phone"} {
		if v, ok := set[field]; ok && old == nil {
			if all := x.shop.where("Customer", field, v); len(all) > 0 {
				old = all[0]
			}
		}
	}
	return func() *object {
		topic, o := "customers/update", old
		if o == nil {
			topic, o = "customers/create", x.shop.newCustomer(0)
		}
		maps.Copy(o.f, set)
		x.shop.touch(o)
		x.emit(topic, o)
		return o
	}
}
