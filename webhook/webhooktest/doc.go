// Package webhooktest sends webhooks the way Shopify does: single signed requests for unit tests
// ([NewRequest]), real sample bodies of every topic ([Payload]), and a [Sender] with Shopify's
// time-outs, redeliveries, duplicates and disorder for storms.
//
//	w := httptest.NewRecorder()
//	hooks.ServeHTTP(w, webhooktest.NewRequest(secret, webhook.Delivery{Meta: webhook.Meta{Topic: "orders/create"}}))
package webhooktest
