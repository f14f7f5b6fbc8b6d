package shopifytest

import (
	"strings"
	"time"
)

func shopKinds() map[string]kind {
	return map[string]kind{
		"Shop": {
			plain: map[string]any{
				"name": nil, "email": nil, "contactEmail": nil, "myshopifyDomain": nil, "url": nil, "currencyCode": nil, "createdAt": nil, "updatedAt": nil, "description": nil, "ianaTimezone": "Etc/UTC", "timezoneAbbreviation": "UTC",
				"timezoneOffset": "+0000", "timezoneOffsetMinutes": 0, "weightUnit": "KILOGRAMS", "unitSystem": "METRIC_SYSTEM", "taxesIncluded": false, "taxShipping": false, "setupRequired": false, "checkoutApiSupported": true,
				"enabledPresentmentCurrencies": nil, "plan": nil, "primaryDomain": nil, "shopOwnerName": nil, "orderNumberFormatPrefix": "#", "orderNumberFormatSuffix": "", "transactionalSmsDisabled": false,
				"marketingSmsConsentEnabledAtCheckout": false, "shopAddress": nil, "billingAddress": nil, "fulfillmentServices": []any{},
			},
			computed: map[string]resolver{"metafield": metafield, "metafields": metafields},
		},
		"ShopPlan": {plain: stored("displayName publicDisplayName partnerDevelopment shopifyPlus")},
		"Domain":   {plain: map[string]any{"host": nil, "url": nil, "sslEnabled": true, "localization": nil, "marketWebPresence": nil}},
		"ShopAddress": {
			plain: stored("address1 address2 city company country countryCodeV2 province provinceCode zip phone latitude longitude"),
			computed: map[string]resolver{
				"coordinatesValidated": func(*execution, *object, *input) (any, error) { return false, nil },
			},
		},
	}
}

// seed makes what every shop has: itself, and one location.
func (s *Shop) seed() {
	name := strings.TrimSuffix(s.Domain, ".myshopify.com")
	title := strings.ToUpper(name[:1]) + name[1:]
	domain := s.add("Domain", map[string]any{"host": s.Domain, "url": "https://" + s.Domain})
	address := value("ShopAddress", map[string]any{})
	s.last++
	address.num, address.id = s.last, newGID("ShopAddress", s.last)
	s.add("Shop", map[string]any{
		"name": title, "email": "owner@" + name + ".example", "contactEmail": "hello@" + name + ".example", "myshopifyDomain": s.Domain, "url": "https://" + s.Domain, "currencyCode": "USD", "createdAt": time.Now().UTC().Truncate(time.Second),
		"updatedAt": now(), "enabledPresentmentCurrencies": []string{"USD"}, "shopOwnerName": "The Owner", "primaryDomain": domain.id, "shopAddress": address, "billingAddress": address,
		"plan": value("ShopPlan", map[string]any{"displayName": "Development", "publicDisplayName": "Development", "partnerDevelopment": true, "shopifyPlus": false}),
	})
	s.newLocation(0, "Main warehouse")
}
