package webhook

import "encoding/json"

// The bodies of the topics that every app on the App Store must handle: the three compliance topics
// (set in shopify.app.toml, never through the API) and app/uninstalled. Act within 30 days.

// DataRequest is the body of customers/data_request: a customer asks what is stored about them.
type DataRequest struct {
	ShopID          int64    `json:"shop_id"`
	ShopDomain      string   `json:"shop_domain"`
	Customer        Customer `json:"customer"`
	OrdersRequested []int64  `json:"orders_requested"`
	DataRequest     struct {
		ID int64 `json:"id"`
	} `json:"data_request"`
}

// CustomerRedact is the body of customers/redact: erase a customer. It comes 10 days after the
// merchant asked, or 60 days after the customer's last order, whichever is later.
type CustomerRedact struct {
	ShopID         int64    `json:"shop_id"`
	ShopDomain     string   `json:"shop_domain"`
	Customer       Customer `json:"customer"`
	OrdersToRedact []int64  `json:"orders_to_redact"`
}

// ShopRedact is the body of shop/redact: erase a shop. It comes 48 hours after the app was
// uninstalled, unless it was installed again.
type ShopRedact struct {
	ShopID     int64  `json:"shop_id"`
	ShopDomain string `json:"shop_domain"`
}

// Customer is the customer of a compliance topic.
type Customer struct {
	ID    int64  `json:"id"`
	Email string `json:"email"`
	Phone string `json:"phone"`
}

// AppUninstalled is the body of app/uninstalled: the shop as it was. The access token is void already.
// Fields that Shopify sends null are empty.
type AppUninstalled struct {
	ID              int64       `json:"id"`
	Name            string      `json:"name"`
	Email           string      `json:"email"`
	Domain          string      `json:"domain"`
	MyshopifyDomain string      `json:"myshopify_domain"`
	ShopOwner       string      `json:"shop_owner"`
	CustomerEmail   string      `json:"customer_email"`
	Phone           string      `json:"phone"`
	Address1        string      `json:"address1"`
	Address2        string      `json:"address2"`
	City            string      `json:"city"`
	Zip             string      `json:"zip"`
	Province        string      `json:"province"`
	ProvinceCode    string      `json:"province_code"`
	Country         string      `json:"country"`
	CountryCode     string      `json:"country_code"`
	Currency        string      `json:"currency"`
	Timezone        string      `json:"timezone"`
	IANATimezone    string      `json:"iana_timezone"`
	PrimaryLocale   string      `json:"primary_locale"`
	PlanName        string      `json:"plan_name"`
	PlanDisplayName string      `json:"plan_display_name"`
	CreatedAt       string      `json:"created_at"`
	UpdatedAt       string      `json:"updated_at"`
	PrimaryLocation json.Number `json:"primary_location_id"`
	PasswordEnabled *bool       `json:"password_enabled"`
	TaxesIncluded   *bool       `json:"taxes_included"`
	HasStorefront   bool        `json:"has_storefront"`
	SetupRequired   bool        `json:"setup_required"`
	Currencies      []string    `json:"enabled_presentment_currencies"`
}
