package shopifytest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

// rest is an object as the REST API and webhooks show it: the keys of the sample, what the fake knows of their values, and null for the rest.
func (s *Shop) rest(o *object) map[string]any {
	switch o.typ {
	case "Product":
		return s.restProduct(o)
	case "ProductVariant":
		return s.restVariant(o)
	case "Order":
		return s.restOrder(o)
	case "Customer":
		return s.restCustomer(o)
	case "InventoryItem":
		return s.restItem(o)
	case "InventoryLevel":
		return map[string]any{
			"inventory_item_id": num(o.f["item"]), "location_id": num(o.f["location"]), "available": o.quantity("available"), "updated_at": stamp(o, "updatedAt"), "admin_graphql_api_id": o.f["shown"],
		}
	case "Location":
		return s.restLocation(o)
	default:
		return s.restShop(o)
	}
}

// num is the number of an ID.
func num(id any) any {
	g, ok := id.(gid)
	if !ok {
		return nil
	}
	_, n, _ := g.parse()
	return n
}

// stamp is a time as REST writes it.
func stamp(o *object, field string) any {
	if t := o.time(field); !t.IsZero() {
		return t.UTC().Format(time.RFC3339)
	}
	return nil
}

// base is the sample of a topic with everything taken out.
func base(topic string) map[string]any {
	var m map[string]any
	if err := json.Unmarshal(webhooktest.Payload(topic), &m); err != nil {
		panic(err) // it is part of the program
	}
	return blank(m)
}

func blank(m map[string]any) map[string]any {
	for k, v := range m {
		switch v.(type) {
		case []any:
			m[k] = []any{}
		default:
			m[k] = nil
		}
	}
	return m
}

func (s *Shop) restProduct(o *object) map[string]any {
	m := base("products/create")
	m["id"], m["admin_graphql_api_id"] = o.num, o.id
	for k, f := range map[string]string{"title": "title", "handle": "handle", "vendor": "vendor", "product_type": "productType", "body_html": "descriptionHtml", "template_suffix": "templateSuffix"} {
		m[k] = o.f[f]
		if v, ok := kinds()["Product"].plain[f]; ok && m[k] == nil {
			m[k] = v
		}
	}
	m["status"], m["published_scope"], m["has_variants_that_requires_components"] = strings.ToLower(o.str("status")), "web", false
	m["tags"] = join(o)
	m["created_at"], m["updated_at"], m["published_at"] = stamp(o, "createdAt"), stamp(o, "updatedAt"), stamp(o, "publishedAt")
	variants, ids, options := []any{}, []any{}, []any{}
	for _, v := range s.variants(o) {
		variants = append(variants, s.restVariant(v))
		ids = append(ids, map[string]any{"admin_graphql_api_id": v.id, "updated_at": v.time("updatedAt").UTC().Format("2006-01-02T15:04:05.000Z")})
	}
	for _, p := range o.f["options"].([]*object) {
		options = append(options, map[string]any{"id": p.num, "product_id": o.num, "name": p.str("name"), "position": p.int("position"), "values": each(p.f["optionValues"].([]*object), "name")})
	}
	m["variants"], m["variant_gids"], m["options"] = variants, ids, options
	return m
}

func join(o *object) string {
	t, _ := o.f["tags"].([]string)
	return strings.Join(t, ", ")
}

func (s *Shop) restVariant(v *object) map[string]any {
	item := s.find(v.f["inventoryItem"].(gid))
	n := s.available(v)
	m := map[string]any{
		"id": v.num, "admin_graphql_api_id": v.id, "product_id": num(v.f["product"]), "title": v.str("title"), "price": v.str("price"), "compare_at_price": v.f["compareAtPrice"], "position": v.int("position"),
		"inventory_policy": "deny", "option1": nil, "option2": nil, "option3": nil, "created_at": stamp(v, "createdAt"), "updated_at": stamp(v, "updatedAt"), "taxable": true, "barcode": v.f["barcode"], "sku": v.f["sku"],
		"inventory_item_id": item.num, "inventory_quantity": n, "old_inventory_quantity": n, "image_id": nil,
	}
	if v.str("inventoryPolicy") == "CONTINUE" {
		m["inventory_policy"] = "continue"
	}
	if t, ok := v.f["taxable"].(bool); ok {
		m["taxable"] = t
	}
	for i, o := range v.f["selectedOptions"].([]*object) {
		m[fmt.Sprintf("option%d", i+1)] = o.str("value")
	}
	return m
}

func moneySet(amount int64, currency string) map[string]any {
	one := map[string]any{"amount": price(amount), "currency_code": currency}
	return map[string]any{"shop_money": one, "presentment_money": one}
}

func (s *Shop) restOrder(o *object) map[string]any {
	m := base("orders/create")
	currency := o.str("currencyCode")
	amount := func(cents int64, names ...string) {
		for _, n := range names {
			if _, ok := m[n]; ok {
				m[n] = price(cents)
			}
			if _, ok := m[n+"_set"]; ok {
				m[n+"_set"] = moneySet(cents, currency)
			}
		}
	}
	amount(0, "current_total_discounts", "current_total_tax", "total_discounts", "total_tax", "total_tip_received", "total_cash_rounding_payment_adjustment", "total_cash_rounding_refund_adjustment")
	amount(subtotal(o), "current_subtotal_price", "subtotal_price", "total_line_items_price")
	amount(total(o), "current_total_price", "total_price")
	amount(shipping(o), "current_shipping_price", "total_shipping_price")
	outstanding := total(o)
	if o.str("displayFinancialStatus") == "PAID" {
		outstanding = 0
	}
	m["total_outstanding"], m["total_weight"] = price(outstanding), 0
	m["id"], m["admin_graphql_api_id"], m["name"], m["number"], m["order_number"] = o.num, o.id, o.str("name"), o.int("number")-1000, o.int("number")
	for k, f := range map[string]string{"email": "email", "contact_email": "email", "phone": "phone", "note": "note", "po_number": "poNumber", "source_name": "sourceName", "source_identifier": "sourceIdentifier"} {
		m[k] = o.f[f]
	}
	m["tags"], m["currency"], m["presentment_currency"] = join(o), currency, currency
	m["financial_status"] = strings.ToLower(o.str("displayFinancialStatus"))
	m["fulfillment_status"] = map[string]any{"FULFILLED": "fulfilled", "PARTIALLY_FULFILLED": "partial", "RESTOCKED": "restocked"}[o.str("displayFulfillmentStatus")]
	if r := o.str("cancelReason"); r != "" {
		m["cancel_reason"] = strings.ToLower(r)
	}
	for _, k := range []string{"buyer_accepts_marketing", "duties_included", "estimated_taxes", "tax_exempt"} {
		m[k] = false
	}
	m["confirmed"], m["test"], m["taxes_included"] = true, o.f["test"] == true, o.f["taxesIncluded"] == true
	for k, f := range map[string]string{"created_at": "createdAt", "updated_at": "updatedAt", "processed_at": "processedAt", "closed_at": "closedAt", "cancelled_at": "cancelledAt"} {
		m[k] = stamp(o, f)
	}
	m["shipping_address"], m["billing_address"] = restAddress(o.f["shippingAddress"]), restAddress(o.f["billingAddress"])
	attrs := []any{}
	list, _ := o.f["customAttributes"].([]*object)
	for _, a := range list {
		attrs = append(attrs, map[string]any{"name": a.str("key"), "value": a.str("value")})
	}
	m["note_attributes"] = attrs
	if c, ok := o.f["customer"].(gid); ok && s.find(c) != nil {
		who := s.restCustomer(s.find(c))
		delete(who, "addresses")
		m["customer"] = who
	}
	lines := []any{}
	for _, l := range s.where("LineItem", "order", o.id) {
		lines = append(lines, s.restLine(l, currency))
	}
	m["line_items"] = lines
	ship := []any{}
	all, _ := o.f["shippingLineList"].([]*object)
	for _, l := range all {
		amount := l.f["originalPriceSet"].(*object).f["shopMoney"].(*object).str("amount")
		c, _ := cents(amount)
		ship = append(ship, map[string]any{"title": l.str("title"), "code": l.f["code"], "source": l.f["source"], "price": price(c), "price_set": moneySet(c, currency), "discounted_price": price(c), "discounted_price_set": moneySet(c, currency),
			"tax_lines": []any{}, "discount_allocations": []any{}})
	}
	m["shipping_lines"] = ship
	return m
}

func (s *Shop) restLine(l *object, currency string) map[string]any {
	left := s.unfulfilled(l)
	m := map[string]any{
		"id": l.num, "admin_graphql_api_id": l.id, "attributed_staffs": []any{}, "current_quantity": l.int("quantity"), "fulfillable_quantity": left, "fulfillment_service": "manual", "fulfillment_status": nil,
		"gift_card": l.f["isGiftCard"] == true, "grams": 0, "name": l.str("name"), "price": price(linePrice(l)), "price_set": moneySet(linePrice(l), currency), "product_exists": false, "product_id": num(l.f["product"]), "properties": []any{},
		"quantity": l.int("quantity"), "requires_shipping": l.f["requiresShipping"] == true, "sales_line_item_group_id": nil, "sku": l.f["sku"], "taxable": l.f["taxable"] != false, "title": l.str("title"), "total_discount": "0.00",
		"total_discount_set": moneySet(0, currency), "variant_id": num(l.f["variant"]), "variant_inventory_management": nil, "variant_title": l.f["variantTitle"], "vendor": l.f["vendor"], "tax_lines": []any{}, "duties": []any{},
		"discount_allocations": []any{},
	}
	if left == 0 {
		m["fulfillment_status"] = "fulfilled"
	}
	if p, ok := l.f["product"].(gid); ok {
		m["product_exists"] = s.find(p) != nil
	}
	return m
}

func restAddress(v any) any {
	a, ok := v.(*object)
	if !ok {
		return nil
	}
	m := map[string]any{"latitude": nil, "longitude": nil, "name": strings.TrimSpace(a.str("firstName") + " " + a.str("lastName"))}
	for k, f := range map[string]string{
		"first_name": "firstName", "last_name": "lastName", "address1": "address1", "address2": "address2", "company": "company", "city": "city", "province": "province", "province_code": "provinceCode", "country": "country",
		"country_code": "countryCodeV2", "zip": "zip", "phone": "phone",
	} {
		m[k] = a.f[f]
	}
	return m
}

func (s *Shop) restCustomer(o *object) map[string]any {
	m := base("customers/create")
	m["id"], m["admin_graphql_api_id"], m["state"], m["verified_email"], m["tax_exempt"] = o.num, o.id, "disabled", true, o.f["taxExempt"] == true
	for k, f := range map[string]string{"first_name": "firstName", "last_name": "lastName", "email": "email", "phone": "phone", "note": "note"} {
		m[k] = o.f[f]
	}
	m["currency"], m["created_at"], m["updated_at"] = s.lists["Shop"][0].str("currencyCode"), stamp(o, "createdAt"), stamp(o, "updatedAt")
	addresses := []any{}
	all, _ := o.f["addressList"].([]*object)
	for i, a := range all {
		r := restAddress(a).(map[string]any)
		delete(r, "latitude")
		delete(r, "longitude")
		r["id"], r["customer_id"], r["country_name"], r["default"] = a.num, o.num, a.f["country"], i == 0
		addresses = append(addresses, r)
	}
	m["addresses"] = addresses
	if len(addresses) > 0 {
		m["default_address"] = addresses[0]
	}
	return m
}

func (s *Shop) restItem(o *object) map[string]any {
	m := base("inventory_items/update")
	m["id"], m["admin_graphql_api_id"], m["sku"], m["tracked"], m["requires_shipping"] = o.num, o.id, o.f["sku"], o.f["tracked"], o.f["requiresShipping"]
	m["created_at"], m["updated_at"] = stamp(o, "createdAt"), stamp(o, "updatedAt")
	m["country_code_of_origin"], m["province_code_of_origin"], m["harmonized_system_code"] = o.f["countryCodeOfOrigin"], o.f["provinceCodeOfOrigin"], o.f["harmonizedSystemCode"]
	if c, ok := o.f["unitCost"].(*object); ok {
		n, _ := cents(c.str("amount"))
		m["cost"] = price(n)
	}
	return m
}

func (s *Shop) restLocation(o *object) map[string]any {
	m := base("locations/create")
	a := o.f["address"].(*object)
	for _, k := range []string{"address1", "address2", "city", "zip", "province", "country", "phone"} {
		m[k] = a.f[k]
	}
	m["country_code"], m["province_code"] = a.f["countryCode"], a.f["provinceCode"]
	m["id"], m["admin_graphql_api_id"], m["name"], m["active"], m["legacy"] = o.num, o.id, o.str("name"), true, false
	m["created_at"], m["updated_at"] = stamp(o, "createdAt"), stamp(o, "updatedAt")
	return m
}

func (s *Shop) restShop(o *object) map[string]any {
	m := base("shop/update")
	for k, f := range map[string]string{"name": "name", "email": "email", "customer_email": "contactEmail", "currency": "currencyCode", "myshopify_domain": "myshopifyDomain", "domain": "myshopifyDomain", "shop_owner": "shopOwnerName"} {
		m[k] = o.f[f]
	}
	m["id"], m["iana_timezone"], m["weight_unit"], m["enabled_presentment_currencies"], m["primary_location_id"] = o.num, "Etc/UTC", "kg", o.f["enabledPresentmentCurrencies"], s.lists["Location"][0].num
	m["created_at"], m["updated_at"] = stamp(o, "createdAt"), stamp(o, "updatedAt")
	return m
}
