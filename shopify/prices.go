package shopify

// What a field costs, where it is not what its kind costs. Facts, fitted to recorded answers of Admin API 2026-04; Shopify changes them by date, without a new version, and
// each answer's extensions.cost corrects them.

const (
	objectPrice     = 1
	connectionPrice = 2
	mutationPrice   = 10
	countPrice      = 10 // of a Count at the root
)

// typePrices are those of objects that are not 1.
var typePrices = map[string]float64{
	"MoneyV2": 0, "MoneyBag": 0, "LocationAddress": 0, "Weight": 0, "InventoryItemMeasurement": 0, "CollectionRuleSet": 0, "CollectionRule": 0,
	"CustomerEmailMarketingConsentState": 0, "CustomerSmsMarketingConsentState": 0,
}

// fieldPrices are those of fields whose type does not tell.
var fieldPrices = map[string]map[string]float64{
	"Customer":           {"defaultAddress": 0},
	"StoreCreditAccount": {"balance": 5},
	"Location":           {"hasUnfulfilledOrders": 1},
	"Blog":               {"articlesCount": 10},
	"Article":            {"commentsCount": 10},
	"DeliveryProfile":    {"productVariantsCount": 10},
	"Publication":        {"includedProductsCount": 10},
}

// mutationPrices are those of mutations that are not 10.
var mutationPrices = map[string]float64{
	"refundCreate": 20, "orderCapture": 20, "fileCreate": 20, "productCreateMedia": 20, "fulfillmentTrackingInfoUpdate": 50, "fulfillmentTrackingInfoUpdateV2": 50,
	"deliveryProfileUpdate": 100, "flowTriggerReceive": 1, "customerSegmentMembersQueryCreate": 2,
}

// itemPrices are what each element of a list among a mutation's arguments, or in one of them, costs on top.
var itemPrices = map[string]map[string]float64{
	"productVariantsBulkCreate": {"variants": 0.2},
	"productCreate":             {"media": 1.9, "metafields": 0.4},
}
