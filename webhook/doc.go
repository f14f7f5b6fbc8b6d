// Package webhook receives Shopify's webhooks: it verifies the signature, parses the headers,
// hands the delivery to a sink under a deadline and answers before Shopify gives up.
//
// The problem: Shopify waits 5 seconds for a 2xx and sends the delivery again otherwise, up to 8
// times in 4 hours, then may delete the subscription. A handler that does its work before it answers
// therefore gets its slowest orders twice. The cure is to verify, store durably, and answer.
//
// The guarantee: 200 is sent only after the sink returned nil (or one of [ErrDuplicate],
// [ErrUnhandled], [ErrBuried], with which the sink says that the delivery is done with). A sink that
// fails, panics or outlives its deadline gives 503, so that Shopify sends the delivery again. Whether
// "returned nil" means durable is the sink's business; package enqueue has one that is.
//
// What it does not do: deduplicate, order, retry or decode the body. Those belong behind the queue.
//
//	hooks, err := webhook.New(webhook.Secrets(secret), sink, webhook.Config{})
//	http.Handle("POST /webhooks", hooks)
//
// [Handler] understands both header families, the classic X-Shopify-* and the shopify-* of Events,
// and never mixes them. [Delivery.Subject] names the resource that a delivery is about, which makes a
// good ordering key. [VerifyAppProxy], [VerifyOAuth] and [VerifyBody] check the other things that
// Shopify signs with the app's secret.
package webhook
