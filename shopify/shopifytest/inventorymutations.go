package shopifytest

import (
	"slices"
)

func inventoryMutations() map[string]mutation {
	return map[string]mutation{
		"inventorySetQuantities": func(x *execution, in *input, p *payload) (func(), error) {
			return inventoryChange(x, in.object("input"), p, true)
		},
		"inventoryAdjustQuantities": func(x *execution, in *input, p *payload) (func(), error) {
			return inventoryChange(x, in.object("input"), p, false)
		},
		"inventoryItemUpdate": func(x *execution, in *input, p *payload) (func(), error) {
			item := x.have(p, "InventoryItem", in.id("id"), "The product couldn't be updated because it does not exist.", "", "id")
			set := map[string]any{}
			itemFields(x, in.object("input"), set)
			return func() {
				if v, ok := x.shop.variantOf(item).(*object); ok {
					x.setItem(v, set)
				}
				p.f["inventoryItem"] = item
				x.emit("inventory_items/update", item)
			}, nil
		},
		"inventoryActivate": func(x *execution, in *input, p *payload) (func(), error) {
			item := x.have(p, "InventoryItem", in.id("inventoryItemId"), "The product couldn't be stocked because it does not exist.", "", "inventoryItemId")
			location := x.have(p, "Location", in.id("locationId"), "The location does not exist.", "", "locationId")
			n, given := in.int("available")
			return func() {
				l := x.shop.newLevel(item, location)
				if given {
					x.shop.setQuantity(l, "available", n)
				}
				p.f["inventoryLevel"] = l
				x.emit("inventory_levels/connect", l)
			}, nil
		},
		"locationAdd": func(x *execution, in *input, p *payload) (func(), error) {
			c := in.object("input")
			name, _ := c.str("name")
			if name == "" {
				p.reject("BLANK", "Add a location name", "input", "name")
			}
			if len(x.shop.where("Location", "name", name)) > 0 {
				p.reject("TAKEN", "You already have a location with this name", "input", "name")
			}
			a := c.object("address")
			f := map[string]any{}
			for _, field := range []string{"address1", "address2", "city", "countryCode", "phone", "provinceCode", "zip"} {
				if v, ok := a.str(field); ok {
					f[field] = v
				}
			}
			online, given := c.bool("fulfillsOnlineOrders")
			metafields := x.metafieldInputs(c, nil, p)
			return func() {
				l := x.shop.newLocation(0, name)
				l.f["address"] = value("LocationAddress", f)
				if given {
					l.f["fulfillsOnlineOrders"] = online
				}
				metafields(l)
				p.f["location"] = l
				x.emit("locations/create", l)
			}, nil
		},
	}
}

// settable are the quantities that can be set, and that can be changed by a difference.
var settable, adjustable = []string{"available", "on_hand"}, []string{"available", "incoming", "reserved", "damaged", "safety_stock", "quality_control"}

// reasons are why inventory changes (shopify.dev, "Set an inventory quantity reason").
var reasons = []string{
	"correction", "cycle_count_available", "damaged", "movement_canceled", "movement_created", "movement_received", "movement_updated", "other", "promotion", "quality_control", "received", "reservation_created",
	"reservation_deleted", "reservation_updated", "restock", "safety_stock", "shrinkage",
}

// inventoryChange is inventorySetQuantities, and inventoryAdjustQuantities, which differ in little.
func inventoryChange(x *execution, in *input, p *payload, set bool) (func(), error) {
	name, _ := in.str("name")
	reason, _ := in.str("reason")
	document, _ := in.str("referenceDocumentUri")
	list, allowed, badName, number := "changes", adjustable, "INVALID_QUANTITY_NAME", "delta"
	if set {
		list, allowed, badName, number = "quantities", settable, "INVALID_NAME", "quantity"
	}
	if !slices.Contains(allowed, name) {
		p.reject(badName, "The specified quantity name is invalid.", "input", "name")
	}
	if !slices.Contains(reasons, reason) {
		p.reject("INVALID_REASON", "The specified reason is invalid.", "input", "reason")
	}
	ignore, _ := in.bool("ignoreCompareQuantity")
	type change struct {
		level *object
		to    int // or by how much
	}
	var all []change
	for i, c := range in.list(list) {
		at := []string{"input", list, itoa(i)}
		item := x.have(p, "InventoryItem", c.id("inventoryItemId"), "The specified inventory item could not be found.", "INVALID_INVENTORY_ITEM", append(at, "inventoryItemId")...)
		location := x.have(p, "Location", c.id("locationId"), "The specified location could not be found.", "INVALID_LOCATION", append(at, "locationId")...)
		n, _ := c.int(number)
		if ledger, ok := c.str("ledgerDocumentUri"); ok || !set && name != "available" && ledger == "" {
			return nil, unsupported("ledger documents, which %s quantities need", name)
		}
		if item == nil || location == nil {
			continue
		}
		found := slices.IndexFunc(x.shop.where("InventoryLevel", "item", item.id), func(l *object) bool { return l.f["location"] == location.id })
		if found < 0 {
			p.reject("ITEM_NOT_STOCKED_AT_LOCATION", "The specified inventory item is not stocked at the location.", append(at, "locationId")...)
			continue
		}
		l := x.shop.where("InventoryLevel", "item", item.id)[found]
		have := l.quantity(name)
		for _, field := range []string{"compareQuantity", "changeFromQuantity"} {
			if want, ok := c.int(field); ok && want != have && !ignore {
				code := map[string]string{"compareQuantity": "COMPARE_QUANTITY_STALE", "changeFromQuantity": "CHANGE_FROM_QUANTITY_STALE"}[field]
				p.reject(code, "The quantity to compare with no longer matches the persisted quantity.", append(at, field)...)
			}
		}
		to := n
		switch {
		case !set:
			to += have
		case slices.ContainsFunc(all, func(c change) bool { return c.level == l }):
			p.reject("NO_DUPLICATE_INVENTORY_ITEM_ID_GROUP_ID_PAIR", "The combination of inventoryItemId and locationId must be unique.", at...)
		case n < 0 && name == "on_hand":
			p.reject("INVALID_QUANTITY_NEGATIVE", "The quantity can't be negative.", append(at, "quantity")...)
		}
		const most = 1_000_000_000
		if to > most {
			p.reject("INVALID_QUANTITY_TOO_HIGH", "The quantity can't be higher than 1,000,000,000.", append(at, number)...)
		} else if to < -most {
			p.reject("INVALID_QUANTITY_TOO_LOW", "The quantity can't be lower than -1,000,000,000.", append(at, number)...)
		}
		all = append(all, change{l, n})
	}
	return func() {
		var done []*object
		for _, c := range all {
			names := []string{name}
			if name == "available" || name == "on_hand" {
				names = []string{"available", "on_hand"}
			}
			if !set {
				c.to += c.level.quantity(name)
			}
			delta := c.to - c.level.quantity(name)
			x.shop.setQuantity(c.level, name, c.to)
			for _, n := range names {
				done = append(done, value("InventoryChange", map[string]any{
					"name": n, "delta": delta, "item": c.level.f["item"], "location": c.level.f["location"], "ledgerDocumentUri": nil, "quantityAfterChange": nil,
				}))
			}
			x.emit("inventory_levels/update", c.level)
		}
		if len(done) > 0 {
			p.f["inventoryAdjustmentGroup"] = x.shop.add("InventoryAdjustmentGroup", map[string]any{"reason": reason, "createdAt": now(), "referenceDocumentUri": orNil(document), "changes": done})
		}
	}, nil
}
