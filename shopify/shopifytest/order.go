package shopifytest

import (
	"fmt"
)

func orderKinds() map[string]kind {
	bag := func(sum func(*object) int64) resolver {
		return func(x *execution, o *object, _ *input) (any, error) { return x.shop.bag(decimal(sum(o))), nil }
	}
	zero := bag(func(*object) int64 { return 0 })
	paid := func(o *object) bool { return o.str("displayFinancialStatus") == "PAID" }
	return map[string]kind{
		"Order": {
			plain: map[string]any{
				"name": nil, "number": nil, "email": nil, "phone": nil, "note": nil, "tags": []string{}, "customer": nil, "createdAt": nil, "updatedAt": nil, "processedAt": nil, "closed": false, "closedAt": nil, "cancelledAt": nil,
				"cancelReason": nil, "currencyCode": nil, "presentmentCurrencyCode": nil, "displayFinancialStatus": nil, "displayFulfillmentStatus": nil, "test": false, "poNumber": nil, "sourceName": nil, "sourceIdentifier": nil,
				"shippingAddress": nil, "billingAddress": nil, "customAttributes": []*object{}, "taxesIncluded": false, "taxExempt": false, "confirmed": true, "confirmationNumber": nil, "edited": false, "dutiesIncluded": false,
				"estimatedTaxes": false, "customerLocale": nil, "clientIp": nil, "discountCode": nil, "discountCodes": []string{}, "paymentGatewayNames": []string{}, "taxLines": []*object{}, "currentTaxLines": []*object{},
				"additionalFees": []any{}, "paymentTerms": nil, "fulfillments": []any{}, "refunds": []any{}, "transactions": []any{}, "shippingLine": nil, "customerAcceptsMarketing": false, "registeredSourceUrl": nil,
				"retailLocation": nil, "staffMember": nil, "returnStatus": "NO_RETURN", "alerts": []any{}, "originalTotalDutiesSet": nil, "currentTotalDutiesSet": nil,
			},
			computed: owned(map[string]resolver{
				"lineItems":        of("LineItem", "order", nil),
				"subtotalPriceSet": bag(subtotal), "currentSubtotalPriceSet": bag(subtotal), "totalPriceSet": bag(total), "currentTotalPriceSet": bag(total), "originalTotalPriceSet": bag(total),
				"totalShippingPriceSet": bag(shipping), "currentShippingPriceSet": bag(shipping), "totalTaxSet": zero, "currentTotalTaxSet": zero, "totalDiscountsSet": zero, "currentTotalDiscountsSet": zero,
				"cartDiscountAmountSet": zero, "currentCartDiscountAmountSet": zero, "totalRefundedSet": zero, "totalRefundedShippingSet": zero, "totalTipReceivedSet": zero, "refundDiscrepancySet": zero, "totalCapturableSet": zero,
				"totalReceivedSet": bag(func(o *object) int64 {
					if paid(o) {
						return total(o)
					}
					return 0
				}),
				"totalOutstandingSet": bag(func(o *object) int64 {
					if paid(o) {
						return 0
					}
					return total(o)
				}),
				"fullyPaid": func(_ *execution, o *object, _ *input) (any, error) { return paid(o), nil },
				"unpaid":    func(_ *execution, o *object, _ *input) (any, error) { return !paid(o), nil },
				"canMarkAsPaid": func(_ *execution, o *object, _ *input) (any, error) {
					return !paid(o) && o.time("cancelledAt").IsZero(), nil
				},
				"subtotalLineItemsQuantity": func(x *execution, o *object, _ *input) (any, error) { return x.shop.quantity(o), nil },
				"currentSubtotalLineItemsQuantity": func(x *execution, o *object, _ *input) (any, error) {
					return x.shop.quantity(o), nil
				},
				"requiresShipping": func(x *execution, o *object, _ *input) (any, error) {
					for _, l := range x.shop.where("LineItem", "order", o.id) {
						if yes, _ := l.f["requiresShipping"].(bool); yes {
							return true, nil
						}
					}
					return false, nil
				},
				"shippingLines": func(_ *execution, o *object, in *input) (any, error) {
					in.bool("includeRemovals")
					all, _ := o.f["shippingLineList"].([]*object)
					return &conn{items: all, in: in}, nil
				},
				"discountApplications": nothing, "returns": nothing,
				"fulfillmentsCount": func(*execution, *object, *input) (any, error) { return counted(0, 0), nil },
				"transactionsCount": func(*execution, *object, *input) (any, error) { return counted(0, 0), nil },
			}),
		},
		"LineItem": {
			plain: map[string]any{
				"title": nil, "name": nil, "quantity": nil, "sku": nil, "variant": nil, "product": nil, "variantTitle": nil, "vendor": nil, "requiresShipping": nil, "taxable": true, "isGiftCard": false,
				"customAttributes": []*object{}, "taxLines": []*object{}, "discountAllocations": []any{}, "duties": []any{}, "image": nil, "sellingPlan": nil, "lineItemGroup": nil, "contract": nil,
			},
			computed: map[string]resolver{
				"originalUnitPriceSet": bag(linePrice), "discountedUnitPriceSet": bag(linePrice), "discountedUnitPriceAfterAllDiscountsSet": bag(linePrice), "originalTotalSet": bag(lineTotal),
				"discountedTotalSet": func(x *execution, o *object, in *input) (any, error) {
					in.bool("withCodeDiscounts")
					return x.shop.bag(decimal(lineTotal(o))), nil
				},
				"totalDiscountSet":    zero,
				"currentQuantity":     func(_ *execution, o *object, _ *input) (any, error) { return o.int("quantity"), nil },
				"refundableQuantity":  func(_ *execution, o *object, _ *input) (any, error) { return o.int("quantity"), nil },
				"unfulfilledQuantity": func(x *execution, o *object, _ *input) (any, error) { return x.shop.unfulfilled(o), nil },
			},
		},
		"ShippingLine": {
			plain: map[string]any{"title": nil, "code": nil, "source": nil, "custom": false, "isRemoved": false, "carrierIdentifier": nil, "deliveryCategory": nil, "phone": nil, "taxLines": []*object{}, "discountAllocations": []any{},
				"originalPriceSet": nil, "discountedPriceSet": nil, "currentDiscountedPriceSet": nil},
		},
	}
}

func linePrice(o *object) int64 { c, _ := o.f["cents"].(int64); return c }

func lineTotal(o *object) int64 { return linePrice(o) * int64(o.int("quantity")) }

func shipping(o *object) int64 { c, _ := o.f["shippingCents"].(int64); return c }

func subtotal(o *object) int64 { c, _ := o.f["subtotalCents"].(int64); return c }

func total(o *object) int64 { return subtotal(o) + shipping(o) }

// quantity is how many things an order has.
func (s *Shop) quantity(o *object) int {
	n := 0
	for _, l := range s.where("LineItem", "order", o.id) {
		n += l.int("quantity")
	}
	return n
}

func (s *Shop) unfulfilled(line *object) int {
	if s.find(line.f["order"].(gid)).str("displayFulfillmentStatus") == "FULFILLED" {
		return 0
	}
	return line.int("quantity")
}

// newOrder makes an order without lines. An id of 0 is the next.
func (s *Shop) newOrder(id int64) *object {
	if id == 0 {
		id = s.nextID()
	}
	s.orders++
	currency := s.lists["Shop"][0].str("currencyCode")
	return s.put("Order", id, stamps(map[string]any{
		"name": fmt.Sprintf("#%d", s.orders), "number": s.orders, "processedAt": now(), "currencyCode": currency, "presentmentCurrencyCode": currency,
		"displayFinancialStatus": "PENDING", "displayFulfillmentStatus": "UNFULFILLED", "test": false,
	}))
}
