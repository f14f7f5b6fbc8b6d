package shopifytest

import (
	"maps"
	"slices"
	"strconv"
)

func itoa(i int) string { return strconv.Itoa(i) }

func productMutations() map[string]mutation {
	return map[string]mutation{
		"productCreate": func(x *execution, in *input, p *payload) (func(), error) {
			c, field := in.object("product"), "product"
			if c == nil {
				c, field = in.object("input"), "input"
			}
			if c == nil {
				return nil, coded("INVALID_FIELD_ARGUMENTS", "productCreate must include exactly one of the following arguments: input, product.")
			}
			title, _ := c.str("title")
			if title == "" {
				p.reject("", "Title can't be blank", "title")
			}
			set := productFields(x, c, p, nil)
			options := readOptions(c, p, field)
			metafields := x.metafieldInputs(c, nil, p)
			return func() {
				made := x.shop.newProduct(0, title)
				if options != nil {
					x.shop.removeVariant(x.shop.variants(made)[0])
					x.shop.setOptions(made, options)
					x.shop.newVariant(0, made, nil)
				}
				set(made)
				if made.str("status") == "ACTIVE" {
					made.f["publishedAt"] = now()
				}
				metafields(made)
				p.f["product"] = made
				x.emit("products/create", made)
			}, nil
		},
		"productUpdate": func(x *execution, in *input, p *payload) (func(), error) {
			c := in.object("product")
			if c == nil {
				c = in.object("input")
			}
			if c == nil {
				return nil, coded("INVALID_FIELD_ARGUMENTS", "productUpdate must include exactly one of the following arguments: input, product.")
			}
			o := x.have(p, "Product", c.id("id"), "Product does not exist", "", "id")
			if title, ok := c.str("title"); c.has("title") && (!ok || title == "") {
				p.reject("", "Title can't be blank", "title")
			}
			set := productFields(x, c, p, o)
			metafields := x.metafieldInputs(c, o, p)
			return func() {
				if title, ok := c.str("title"); ok {
					o.f["title"] = title
				}
				set(o)
				metafields(o)
				p.f["product"] = o
				x.changed(o)
			}, nil
		},
		"productDelete": func(x *execution, in *input, p *payload) (func(), error) {
			if sync, ok := in.bool("synchronous"); ok && !sync {
				return nil, unsupported("productDelete that is not synchronous")
			}
			o := x.have(p, "Product", in.object("input").id("id"), "Product does not exist", "", "id")
			return func() {
				x.shop.removeProduct(o)
				p.f["deletedProductId"] = string(o.id)
				x.emit("products/delete", o)
			}, nil
		},
		"productVariantsBulkCreate": variantsBulkCreate,
		"productVariantsBulkUpdate": variantsBulkUpdate,
		"productVariantsBulkDelete": func(x *execution, in *input, p *payload) (func(), error) {
			o := x.have(p, "Product", in.id("productId"), "Product does not exist", "PRODUCT_DOES_NOT_EXIST", "productId")
			var gone []*object
			ids := in.strs("variantsIds")
			slices.Sort(ids)
			for i, id := range slices.Compact(ids) {
				v := x.shop.find(gid(id))
				if o == nil || v == nil || v.f["product"] != o.id {
					p.reject("AT_LEAST_ONE_VARIANT_DOES_NOT_BELONG_TO_THE_PRODUCT", "At least one variant does not belong to the product", "variantsIds", itoa(i))
					continue
				}
				gone = append(gone, v)
			}
			if o != nil && len(gone) >= len(x.shop.variants(o)) {
				p.reject("CANNOT_DELETE_LAST_VARIANT", "Cannot delete the last variant of a product", "variantsIds")
			}
			return func() {
				for _, v := range gone {
					x.shop.removeVariant(v)
				}
				p.f["product"] = o
				x.changed(o)
			}, nil
		},
	}
}

// productFields reads what productCreate and productUpdate share.
func productFields(x *execution, in *input, p *payload, old *object) func(*object) {
	set := map[string]any{}
	for _, name := range []string{"descriptionHtml", "productType", "vendor", "status"} {
		if v, ok := in.str(name); ok {
			set[name] = v
		}
	}
	if in.has("templateSuffix") {
		v, _ := in.str("templateSuffix")
		set["templateSuffix"] = orNil(v)
	}
	if h, ok := in.str("handle"); ok {
		if h = handle(h); slices.ContainsFunc(x.shop.where("Product", "handle", h), func(o *object) bool { return o != old }) {
			p.reject("", "Handle '"+h+"' already in use. Please provide a new handle.", "handle")
		}
		set["handle"] = h
	}
	if in.has("tags") {
		set["tags"] = tags(in.strs("tags"))
	}
	if seo := in.object("seo"); seo != nil {
		title, _ := seo.str("title")
		description, _ := seo.str("description")
		set["seo"] = value("SEO", map[string]any{"title": orNil(title), "description": orNil(description)})
	}
	return func(o *object) {
		maps.Copy(o.f, set)
	}
}

// maxOptions is how many options a product has at most.
const maxOptions = 3

func readOptions(in *input, p *payload, field string) []option {
	var all []option
	for i, o := range in.list("productOptions") {
		name, _ := o.str("name")
		if name == "" {
			p.reject("", "Option name can't be blank", field, "productOptions", itoa(i), "name")
		}
		made := option{name: name}
		for _, v := range o.list("values") {
			n, _ := v.str("name")
			made.values = append(made.values, n)
		}
		if len(made.values) == 0 {
			p.reject("", "Option values can't be blank", field, "productOptions", itoa(i), "values")
		}
		o.int("position") // they are in order
		all = append(all, made)
	}
	if len(all) > maxOptions {
		p.reject("", "Can only specify a maximum of 3 options", field, "productOptions")
	}
	return all
}

// variantFields reads what the bulk mutations share.
func variantFields(x *execution, in *input, p *payload, at []string) func(*object) {
	set, item := map[string]any{}, map[string]any{}
	for _, name := range []string{"price", "compareAtPrice"} {
		if !in.has(name) {
			continue
		}
		v, given := in.str(name)
		c, ok := cents(v)
		switch {
		case !given:
			set[name] = nil
		case !ok:
			p.reject("INVALID_INPUT", "Price is not a number", append(at, name)...)
		case c < 0:
			p.reject("GREATER_THAN_OR_EQUAL_TO", "Price must be greater than or equal to 0", append(at, name)...)
		default:
			set[name] = price(c)
		}
	}
	if in.has("barcode") {
		v, _ := in.str("barcode")
		set["barcode"] = orNil(v)
	}
	if v, ok := in.bool("taxable"); ok {
		set["taxable"] = v
	}
	if v, ok := in.str("inventoryPolicy"); ok {
		set["inventoryPolicy"] = v
	}
	if i := in.object("inventoryItem"); i != nil {
		itemFields(x, i, item)
	}
	return func(v *object) {
		maps.Copy(v.f, set)
		x.setItem(v, item)
		x.shop.touch(v)
	}
}

// itemFields reads an InventoryItemInput.
func itemFields(x *execution, in *input, into map[string]any) {
	if in.has("sku") {
		v, _ := in.str("sku")
		into["sku"] = orNil(v)
	}
	for _, name := range []string{"tracked", "requiresShipping"} {
		if v, ok := in.bool(name); ok {
			into[name] = v
		}
	}
	for _, name := range []string{"countryCodeOfOrigin", "provinceCodeOfOrigin", "harmonizedSystemCode"} {
		if v, ok := in.str(name); ok {
			into[name] = v
		}
	}
	if v, ok := in.str("cost"); ok {
		if c, ok := cents(v); ok {
			into["unitCost"] = x.shop.money(decimal(c))
		}
	}
	if w := in.object("measurement").object("weight"); w != nil {
		v, _ := w.float("value")
		unit, _ := w.str("unit")
		into["weight"] = value("Weight", map[string]any{"value": v, "unit": unit})
	}
}

// setItem changes a variant's inventory item. The SKU is kept with both.
func (x *execution) setItem(v *object, set map[string]any) {
	if len(set) == 0 {
		return
	}
	item := x.shop.find(v.f["inventoryItem"].(gid))
	maps.Copy(item.f, set)
	v.f["sku"] = item.f["sku"]
	x.shop.touch(item)
}

func variantsBulkCreate(x *execution, in *input, p *payload) (func(), error) {
	o := x.have(p, "Product", in.id("productId"), "Product does not exist", "PRODUCT_DOES_NOT_EXIST", "productId")
	strategy, _ := in.str("strategy")
	if strategy == "PRESERVE_STANDALONE_VARIANT" {
		return nil, unsupported("the strategy %s", strategy)
	}
	if o == nil {
		return nil, nil
	}
	type plan struct {
		values []string
		set    func(*object)
		meta   func(*object)
		stock  []func(*object)
	}
	var plans []plan
	options := o.f["options"].([]*object)
	taken := map[string]bool{}
	alone := len(x.shop.variants(o)) == 1 && (strategy == "REMOVE_STANDALONE_VARIANT" || x.shop.variants(o)[0].str("title") == defaultTitle)
	if !alone {
		for _, v := range x.shop.variants(o) {
			taken[v.str("title")] = true
		}
	}
	for i, v := range in.list("variants") {
		at := []string{"variants", itoa(i)}
		pl := plan{values: make([]string, len(options)), set: variantFields(x, v, p, at), meta: x.metafieldInputs(v, nil, p)}
		for j, ov := range v.list("optionValues") {
			name, _ := ov.str("name")
			by, _ := ov.str("optionName")
			id := ov.id("optionId")
			k := slices.IndexFunc(options, func(o *object) bool { return o.id == id || by != "" && o.str("name") == by })
			if k < 0 {
				p.reject("INVALID_INPUT", "Option does not exist", append(at, "optionValues", itoa(j))...)
				continue
			}
			pl.values[k] = name
		}
		title := ""
		for k, val := range pl.values {
			if val == "" {
				p.reject("NEED_TO_ADD_OPTION_VALUES", "You need to add option values for "+options[k].str("name"), at...)
			}
			if title != "" {
				title += " / "
			}
			title += val
		}
		if taken[title] {
			p.reject("VARIANT_ALREADY_EXISTS", "The variant '"+title+"' already exists. Please change at least one option value.", at...)
		}
		taken[title] = true
		for j, l := range v.list("inventoryQuantities") {
			n, _ := l.int("availableQuantity")
			loc := x.have(p, "Location", l.id("locationId"), "Location does not exist", "TRACKED_VARIANT_LOCATION_NOT_FOUND", append(at, "inventoryQuantities", itoa(j))...)
			pl.stock = append(pl.stock, func(v *object) {
				x.shop.setQuantity(x.shop.newLevel(x.shop.find(v.f["inventoryItem"].(gid)), loc), "available", n)
			})
		}
		plans = append(plans, pl)
	}
	return func() {
		if alone && len(plans) > 0 {
			x.shop.removeVariant(x.shop.variants(o)[0])
		}
		var made []*object
		for _, pl := range plans {
			v := x.shop.newVariant(0, o, pl.values)
			pl.set(v)
			pl.meta(v)
			for _, f := range pl.stock {
				f(v)
			}
			made = append(made, v)
		}
		p.f["product"], p.f["productVariants"] = o, made
		x.changed(o)
	}, nil
}

func variantsBulkUpdate(x *execution, in *input, p *payload) (func(), error) {
	o := x.have(p, "Product", in.id("productId"), "Product does not exist", "PRODUCT_DOES_NOT_EXIST", "productId")
	if partial, _ := in.bool("allowPartialUpdates"); partial {
		return nil, unsupported("allowPartialUpdates")
	}
	var updates []func()
	var changed []*object
	for i, v := range in.list("variants") {
		at := []string{"variants", itoa(i)}
		variant := x.shop.find(v.id("id"))
		if o == nil || variant == nil || variant.f["product"] != o.id {
			p.reject("PRODUCT_VARIANT_DOES_NOT_EXIST", "Product variant does not exist", append(at, "id")...)
			continue
		}
		set, meta := variantFields(x, v, p, at), x.metafieldInputs(v, variant, p)
		updates = append(updates, func() { set(variant); meta(variant) })
		changed = append(changed, variant)
	}
	return func() {
		for _, f := range updates {
			f()
		}
		p.f["product"], p.f["productVariants"] = o, changed
		x.changed(o)
	}, nil
}
