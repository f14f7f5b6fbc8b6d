package shopifytest

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

func productKinds() map[string]kind {
	return map[string]kind{
		"Product": {
			plain: map[string]any{
				"title": nil, "handle": nil, "vendor": nil, "productType": "", "status": nil, "tags": []string{}, "descriptionHtml": "", "templateSuffix": nil, "createdAt": nil, "updatedAt": nil, "publishedAt": nil,
				"isGiftCard": false, "giftCardTemplateSuffix": nil, "requiresSellingPlan": false, "hasVariantsThatRequiresComponents": false, "category": nil, "combinedListing": nil, "combinedListingRole": nil,
				"feedback": nil, "onlineStorePreviewUrl": nil, "onlineStoreUrl": nil, "featuredMedia": nil, "featuredImage": nil, "options": nil, "seo": value("SEO", map[string]any{}),
			},
			computed: owned(map[string]resolver{
				"description": func(_ *execution, o *object, in *input) (any, error) {
					text := plainText(o.str("descriptionHtml"))
					if n, ok := in.int("truncateAt"); ok && n < len([]rune(text)) {
						text = string([]rune(text)[:max(0, n-3)]) + "..."
					}
					return text, nil
				},
				"variants": func(x *execution, o *object, in *input) (any, error) {
					by := func(v *object) string { return fmt.Sprintf("%09d", v.int("position")) }
					switch key, _ := in.str("sortKey"); key {
					case "", "POSITION":
					case "ID":
						by = nil
					default:
						return nil, unsupported("the sort key %s of variants", key)
					}
					return &conn{items: x.shop.variants(o), by: by, in: in}, nil
				},
				"variantsCount": func(x *execution, o *object, _ *input) (any, error) { return counted(len(x.shop.variants(o)), 0), nil },
				"totalVariants": func(x *execution, o *object, _ *input) (any, error) { return len(x.shop.variants(o)), nil },
				"options": func(_ *execution, o *object, in *input) (any, error) {
					options, _ := o.f["options"].([]*object)
					if n, ok := in.int("first"); ok && n >= 0 {
						options = options[:min(n, len(options))]
					}
					return options, nil
				},
				"totalInventory": func(x *execution, o *object, _ *input) (any, error) {
					total := 0
					for _, v := range x.shop.variants(o) {
						total += x.shop.available(v)
					}
					return total, nil
				},
				"tracksInventory": func(x *execution, o *object, _ *input) (any, error) {
					return slices.ContainsFunc(x.shop.variants(o), x.shop.tracked), nil
				},
				"hasOnlyDefaultVariant": func(x *execution, o *object, _ *input) (any, error) {
					all := x.shop.variants(o)
					return len(all) == 1 && all[0].str("title") == defaultTitle, nil
				},
				"hasOutOfStockVariants": func(x *execution, o *object, _ *input) (any, error) {
					return slices.ContainsFunc(x.shop.variants(o), func(v *object) bool { return x.shop.tracked(v) && x.shop.available(v) <= 0 }), nil
				},
				"priceRangeV2":  func(x *execution, o *object, _ *input) (any, error) { return x.shop.priceRange(o), nil },
				"defaultCursor": defaultCursor, "collections": nothing, "media": nothing, "images": nothing, "sellingPlanGroups": nothing, "bundleComponents": nothing,
				"mediaCount":             func(*execution, *object, *input) (any, error) { return counted(0, 0), nil },
				"sellingPlanGroupsCount": func(*execution, *object, *input) (any, error) { return counted(0, 0), nil },
				"inCollection":           func(_ *execution, _ *object, in *input) (any, error) { in.id("id"); return false, nil },
			}),
		},
		"SEO":                 {plain: stored("title description")},
		"ProductPriceRangeV2": {plain: stored("minVariantPrice maxVariantPrice")},
		"SelectedOption":      {plain: stored("name value optionValue")},
		"ProductOption": {
			plain: map[string]any{"name": nil, "position": nil, "linkedMetafield": nil},
			computed: map[string]resolver{
				"values": func(x *execution, o *object, _ *input) (any, error) {
					var names []string
					for _, v := range o.f["optionValues"].([]*object) {
						if x.shop.usesValue(o, v) {
							names = append(names, v.str("name"))
						}
					}
					return names, nil
				},
				"optionValues": func(_ *execution, o *object, _ *input) (any, error) { return o.f["optionValues"], nil },
			},
		},
		"ProductOptionValue": {
			plain: map[string]any{"name": nil, "linkedMetafieldValue": nil, "swatch": nil},
			computed: map[string]resolver{
				"hasVariants": func(x *execution, o *object, _ *input) (any, error) {
					return x.shop.usesValue(x.shop.find(o.f["option"].(gid)), o), nil
				},
			},
		},
		"ProductVariant": {
			plain: map[string]any{
				"title": nil, "sku": nil, "barcode": nil, "price": nil, "compareAtPrice": nil, "position": nil, "taxable": true, "inventoryPolicy": "DENY", "createdAt": nil, "updatedAt": nil, "product": nil,
				"inventoryItem": nil, "selectedOptions": nil, "requiresComponents": false, "showUnitPrice": false, "unitPrice": nil, "unitPriceMeasurement": nil, "deliveryProfile": nil, "image": nil,
			},
			computed: owned(map[string]resolver{
				"displayName": func(x *execution, o *object, _ *input) (any, error) {
					return x.shop.find(o.f["product"].(gid)).str("title") + " - " + o.str("title"), nil
				},
				"inventoryQuantity":      func(x *execution, o *object, _ *input) (any, error) { return x.shop.available(o), nil },
				"sellableOnlineQuantity": func(x *execution, o *object, _ *input) (any, error) { return x.shop.available(o), nil },
				"availableForSale": func(x *execution, o *object, _ *input) (any, error) {
					return !x.shop.tracked(o) || o.str("inventoryPolicy") == "CONTINUE" || x.shop.available(o) > 0, nil
				},
				"defaultCursor": defaultCursor, "media": nothing, "sellingPlanGroups": nothing, "productVariantComponents": nothing,
				"sellingPlanGroupsCount": func(*execution, *object, *input) (any, error) { return counted(0, 0), nil },
			}),
		},
	}
}

const defaultTitle = "Default Title"

// variants are those of a product, by their position.
func (s *Shop) variants(p *object) []*object {
	all := s.where("ProductVariant", "product", p.id)
	slices.SortStableFunc(all, func(a, b *object) int { return cmp.Compare(a.int("position"), b.int("position")) })
	return all
}

func (s *Shop) tracked(v *object) bool {
	t, _ := s.find(v.f["inventoryItem"].(gid)).f["tracked"].(bool)
	return t
}

// available is how much of a variant is available, over all locations.
func (s *Shop) available(v *object) int {
	n := 0
	for _, l := range s.where("InventoryLevel", "item", v.f["inventoryItem"]) {
		n += l.f["quantities"].(map[string]int)["available"]
	}
	return n
}

func (s *Shop) usesValue(option, v *object) bool {
	for _, variant := range s.where("ProductVariant", "product", option.f["product"]) {
		for _, o := range variant.f["selectedOptions"].([]*object) {
			if o.str("name") == option.str("name") && o.str("value") == v.str("name") {
				return true
			}
		}
	}
	return false
}

func (s *Shop) priceRange(p *object) *object {
	var low, high int64
	for i, v := range s.variants(p) {
		c, _ := cents(v.str("price"))
		if i == 0 || c < low {
			low = c
		}
		high = max(high, c)
	}
	return value("ProductPriceRangeV2", map[string]any{"minVariantPrice": s.money(decimal(low)), "maxVariantPrice": s.money(decimal(high))})
}

func productByIdentifier(x *execution, _ *object, in *input) (any, error) {
	by := in.object("identifier")
	if id, ok := by.str("id"); ok {
		return typed("Product", gid(id))
	}
	if h, ok := by.str("handle"); ok {
		if found := x.shop.where("Product", "handle", h); len(found) > 0 {
			return found[0], nil
		}
	}
	return nil, nil
}

// newProduct makes a product with one variant. An id of 0 is the next.
func (s *Shop) newProduct(id int64, title string) *object {
	f := stamps(map[string]any{"title": title, "handle": s.freeHandle(handle(title)), "vendor": s.lists["Shop"][0].str("name"), "status": "ACTIVE", "tags": []string{}, "seo": value("SEO", map[string]any{})})
	if id == 0 {
		id = s.nextID()
	}
	p := s.put("Product", id, f)
	s.setOptions(p, []option{{"Title", []string{defaultTitle}}})
	s.newVariant(0, p, []string{defaultTitle})
	return p
}

func (s *Shop) freeHandle(h string) string {
	for n := 1; ; n++ {
		free := h
		if n > 1 {
			free = h + "-" + strconv.Itoa(n-1)
		}
		if len(s.where("Product", "handle", free)) == 0 {
			return free
		}
	}
}

type option struct {
	name   string
	values []string
}

func (s *Shop) setOptions(p *object, options []option) {
	var all []*object
	for i, o := range options {
		made := s.add("ProductOption", map[string]any{"name": o.name, "position": i + 1, "product": p.id})
		made.f["optionValues"] = []*object{}
		for _, v := range o.values {
			s.addValue(made, v)
		}
		all = append(all, made)
	}
	p.f["options"] = all
}

func (s *Shop) addValue(option *object, name string) {
	values := option.f["optionValues"].([]*object)
	if !slices.ContainsFunc(values, func(v *object) bool { return v.str("name") == name }) {
		option.f["optionValues"] = append(values, s.add("ProductOptionValue", map[string]any{"name": name, "option": option.id}))
	}
}

// newVariant makes a variant with a value for each of its product's options (nil: the first of each), an inventory item, and a level at the first location.
func (s *Shop) newVariant(id int64, p *object, values []string) *object {
	var selected []*object
	for i, o := range p.f["options"].([]*object) {
		known := o.f["optionValues"].([]*object)
		v := known[0].str("name")
		if i < len(values) {
			v = values[i]
			s.addValue(o, v)
		}
		selected = append(selected, value("SelectedOption", map[string]any{"name": o.str("name"), "value": v}))
	}
	item := s.add("InventoryItem", stamps(map[string]any{"sku": nil, "tracked": false, "requiresShipping": true}))
	s.newLevel(item, s.lists["Location"][0])
	if id == 0 {
		id = s.nextID()
	}
	v := s.put("ProductVariant", id, stamps(map[string]any{
		"product": p.id, "inventoryItem": item.id, "price": "0.00", "position": len(s.variants(p)) + 1, "selectedOptions": selected,
	}))
	v.f["title"] = variantTitle(selected)
	return v
}

func variantTitle(selected []*object) string {
	var words []string
	for _, o := range selected {
		words = append(words, o.str("value"))
	}
	return strings.Join(words, " / ")
}

func (s *Shop) removeVariant(v *object) {
	item := s.find(v.f["inventoryItem"].(gid))
	for _, l := range s.where("InventoryLevel", "item", item.id) {
		s.remove(l)
	}
	s.removeOwned(item)
	s.removeOwned(v)
}

// removeOwned removes an object and its metafields.
func (s *Shop) removeOwned(o *object) {
	for _, m := range s.where("Metafield", "owner", o.id) {
		s.remove(m)
	}
	s.remove(o)
}

func (s *Shop) removeProduct(p *object) {
	for _, v := range s.variants(p) {
		s.removeVariant(v)
	}
	for _, o := range p.f["options"].([]*object) {
		for _, v := range o.f["optionValues"].([]*object) {
			s.remove(v)
		}
		s.remove(o)
	}
	s.removeOwned(p)
}
