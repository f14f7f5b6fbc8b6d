package shopifytest

import (
	"cmp"
	"fmt"
	"slices"
)

func inventoryKinds() map[string]kind {
	return map[string]kind{
		"InventoryItem": {
			plain: map[string]any{
				"sku": nil, "tracked": nil, "requiresShipping": nil, "createdAt": nil, "updatedAt": nil, "countryCodeOfOrigin": nil, "provinceCodeOfOrigin": nil, "harmonizedSystemCode": nil, "unitCost": nil,
			},
			computed: identified(map[string]resolver{
				"variant": func(x *execution, o *object, _ *input) (any, error) { return x.shop.variantOf(o), nil },
				"variants": func(x *execution, o *object, in *input) (any, error) {
					return &conn{items: x.shop.where("ProductVariant", "inventoryItem", o.id), in: in}, nil
				},
				"inventoryLevels": levels("item"),
				"inventoryLevel":  level("item", "location", "locationId"),
				"locationsCount": func(x *execution, o *object, _ *input) (any, error) {
					return counted(len(x.shop.where("InventoryLevel", "item", o.id)), 0), nil
				},
				"duplicateSkuCount": func(x *execution, o *object, _ *input) (any, error) {
					if o.str("sku") == "" {
						return 0, nil
					}
					return len(x.shop.where("InventoryItem", "sku", o.str("sku"))) - 1, nil
				},
				"measurement": func(_ *execution, o *object, _ *input) (any, error) {
					m := value("InventoryItemMeasurement", map[string]any{"weight": o.f["weight"]})
					m.id = newGID("InventoryItemMeasurement", o.num)
					return m, nil
				},
			}),
		},
		"InventoryItemMeasurement": {plain: stored("weight")},
		"Weight":                   {plain: stored("unit value")},
		"InventoryLevel": {
			plain: map[string]any{"item": nil, "location": nil, "createdAt": nil, "updatedAt": nil, "isActive": true, "canDeactivate": true, "deactivationAlert": nil},
			computed: map[string]resolver{
				"id":         func(_ *execution, o *object, _ *input) (any, error) { return o.f["shown"], nil },
				"quantities": quantities,
			},
		},
		"InventoryQuantity": {plain: stored("name quantity updatedAt")},
		"Location": {
			plain: map[string]any{
				"name": nil, "address": nil, "addressVerified": false, "isActive": true, "createdAt": nil, "updatedAt": nil, "deactivatedAt": nil, "fulfillsOnlineOrders": true, "shipsInventory": true, "isPrimary": false,
				"isFulfillmentService": false, "fulfillmentService": nil, "hasUnfulfilledOrders": false, "localPickupSettingsV2": nil, "suggestedAddresses": []any{},
			},
			computed: owned(map[string]resolver{
				"inventoryLevels": levels("location"),
				"inventoryLevel":  level("location", "item", "inventoryItemId"),
				"hasActiveInventory": func(x *execution, o *object, _ *input) (any, error) {
					return len(x.shop.where("InventoryLevel", "location", o.id)) > 0, nil
				},
				"deletable":   func(*execution, *object, *input) (any, error) { return false, nil },
				"activatable": func(*execution, *object, *input) (any, error) { return true, nil },
				"deactivatable": func(x *execution, _ *object, _ *input) (any, error) {
					return len(x.shop.lists["Location"]) > 1, nil
				},
			}),
		},
		"LocationAddress": {
			plain: stored("address1 address2 city country countryCode province provinceCode zip phone latitude longitude"),
			computed: map[string]resolver{"formatted": func(_ *execution, o *object, _ *input) (any, error) {
				return lines(o.str("address1"), o.str("address2"), o.str("city"), o.str("provinceCode"), o.str("zip"), o.str("country")), nil
			}},
		},
		"InventoryAdjustmentGroup": {
			plain:    map[string]any{"reason": nil, "createdAt": nil, "referenceDocumentUri": nil, "staffMember": nil},
			computed: map[string]resolver{"changes": changes},
		},
		"InventoryChange": {plain: stored("name delta item location ledgerDocumentUri quantityAfterChange")},
	}
}

// lines are those that say something.
func lines(all ...string) []string {
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

// quantityNames are the states of inventory, in the API's order (shopify.dev/docs/apps/build/orders-fulfillment/inventory-management-apps).
var quantityNames = []string{"available", "on_hand", "committed", "incoming", "reserved", "damaged", "safety_stock", "quality_control"}

func (s *Shop) newLevel(item, location *object) *object {
	for _, l := range s.where("InventoryLevel", "item", item.id) {
		if l.f["location"] == location.id {
			return l
		}
	}
	l := s.add("InventoryLevel", stamps(map[string]any{"item": item.id, "location": location.id, "quantities": map[string]int{}}))
	l.f["shown"] = gid(fmt.Sprintf("%s?inventory_item_id=%d", l.id, item.num)) // as Shopify shows it
	return l
}

// level finds an inventory level by the ID that it is shown with, or its own.
func (s *Shop) level(id gid) any {
	if _, n, ok := id.parse(); ok {
		if l := s.find(newGID("InventoryLevel", n)); l != nil {
			return l
		}
	}
	return nil
}

func (s *Shop) variantOf(item *object) any {
	if found := s.where("ProductVariant", "inventoryItem", item.id); len(found) > 0 {
		return found[0]
	}
	return nil
}

func levels(field string) resolver {
	return func(x *execution, o *object, in *input) (any, error) {
		in.bool("includeInactive") // none is
		items, err := filter(x.shop, "InventoryLevel", x.shop.where("InventoryLevel", field, o.id), in)
		if err != nil {
			return nil, err
		}
		return &conn{items: items, in: in}, nil
	}
}

func level(field, other, arg string) resolver {
	return func(x *execution, o *object, in *input) (any, error) {
		in.bool("includeInactive")
		id := in.id(arg)
		for _, l := range x.shop.where("InventoryLevel", field, o.id) {
			if l.f[other] == id {
				return l, nil
			}
		}
		return nil, nil
	}
}

func quantities(_ *execution, o *object, in *input) (any, error) {
	var out []*object
	for _, name := range in.strs("names") {
		if !slices.Contains(quantityNames, name) {
			return nil, coded("BAD_REQUEST", "The quantity name %q is not valid", name)
		}
		q := value("InventoryQuantity", map[string]any{"name": name, "quantity": o.quantity(name), "updatedAt": o.f["updatedAt"]})
		q.id = gid(fmt.Sprintf("gid://shopify/InventoryQuantity/%d?inventory_item_id=%s&name=%s", o.num, number(o.f["item"].(gid)), name))
		out = append(out, q)
	}
	return out, nil
}

func number(id gid) string { _, n, _ := id.parse(); return fmt.Sprint(n) }

// quantity is one of a level's. What is on hand is the sum of the others but what is on its way.
func (o *object) quantity(name string) int {
	q := o.f["quantities"].(map[string]int)
	if name != "on_hand" {
		return q[name]
	}
	return q["available"] + q["committed"] + q["reserved"] + q["damaged"] + q["safety_stock"] + q["quality_control"]
}

// setQuantity changes a level; what is set on hand goes to what is available.
func (s *Shop) setQuantity(l *object, name string, to int) {
	q := l.f["quantities"].(map[string]int)
	if name == "on_hand" {
		name, to = "available", q["available"]+to-l.quantity("on_hand")
	}
	q[name] = to
	s.touch(l)
}

func (s *Shop) newLocation(id int64, name string) *object {
	if id == 0 {
		id = s.nextID()
	}
	return s.put("Location", id, stamps(map[string]any{"name": name, "isActive": true, "address": value("LocationAddress", map[string]any{})}))
}

// oneLocation is one by its ID, or the first.
func oneLocation(x *execution, _ *object, in *input) (any, error) {
	return typed("Location", cmp.Or(in.id("id"), x.shop.lists["Location"][0].id))
}

func changes(_ *execution, o *object, in *input) (any, error) {
	all := o.f["changes"].([]*object)
	for arg, field := range map[string]string{"inventoryItemIds": "item", "locationIds": "location", "quantityNames": "name"} {
		if ids := in.strs(arg); ids != nil {
			all = slices.DeleteFunc(slices.Clone(all), func(c *object) bool { return !slices.Contains(ids, fmt.Sprint(c.f[field])) })
		}
	}
	return all, nil
}
