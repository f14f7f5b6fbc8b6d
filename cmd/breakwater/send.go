package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/breakwater-go/breakwater/webhook"
	"github.com/breakwater-go/breakwater/webhook/webhooktest"
)

const sendUsage = `usage: breakwater send TOPIC -to URL -secret SECRET [flags]

Sends signed webhooks to a handler as Shopify would: 1 s to connect, 5 s for the answer, only 2xx counts. A
delivery that fails is not sent again unless -retry is given. Exits 1 if one was not acknowledged.
"breakwater send topics" lists the topics that have a sample body.

`

func send(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("send", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed once, by main
	to := flags.String("to", "", "`URL` of the handler")
	secret := flags.String("secret", "", "`secret` to sign with; $SHOPIFY_API_SECRET by default")
	shop := flags.String("shop", "example.myshopify.com", "`shop` that the deliveries come from")
	body := flags.String("body", "", "`file` with the body; the topic's sample by default")
	n := flags.Int("n", 1, "how many deliveries to send, each of a resource of its own where the body's ID has 6 digits or more")
	at := flags.Int("c", 1, "how many requests may be under way at once; with 1 they are sent in order")
	var dup share
	flags.Var(&dup, "dup", "send deliveries twice: all, or with -dup=0.2 a `share` of them")
	shuffle := flags.Bool("shuffle", false, "send in random order")
	retry := flags.Float64("retry", 0, "send failed ones again on Shopify's schedule, this many `times` faster; 0 means never")
	seed := flags.Uint64("seed", uint64(time.Now().UnixNano()), "seed of what is random")

	topics, err := parse(flags, args)
	topic := strings.Join(topics, ", ")
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, sendUsage)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return nil
	case err != nil:
		return fmt.Errorf("%w: send: %w", errUsage, err)
	case len(topics) > 1:
		return fmt.Errorf("%w: send: one topic at a time: %s", errUsage, topic)
	}
	*secret = cmp.Or(*secret, os.Getenv("SHOPIFY_API_SECRET"))
	if topic == "topics" {
		fmt.Fprintln(stdout, strings.Join(webhooktest.Topics(), "\n"))
		return nil
	}
	target, err := url.Parse(*to)
	switch {
	case topic == "":
		return fmt.Errorf("%w: send: no topic given, e.g. orders/create", errUsage)
	case err != nil || target.Host == "":
		return fmt.Errorf("%w: send: -to %q is not a URL such as http://localhost:8080/webhooks", errUsage, *to)
	case *secret == "":
		return fmt.Errorf("%w: send: -secret is empty and $SHOPIFY_API_SECRET is not set", errUsage)
	case *n < 1 || *at < 1 || *retry < 0:
		return fmt.Errorf("%w: send: -n and -c must be at least 1 and -retry not negative", errUsage)
	}
	sample, err := sampleBody(topic, *body)
	if err != nil {
		return err
	}

	deliveries := make([]webhooktest.Outgoing, *n)
	for i := range deliveries {
		deliveries[i].Delivery = webhook.Delivery{Meta: webhook.Meta{Topic: topic, Shop: *shop}, Body: numbered(topic, sample, i)}
	}
	if *shuffle {
		rand.New(rand.NewPCG(*seed, 0)).Shuffle(*n, func(i, j int) {
			deliveries[i], deliveries[j] = deliveries[j], deliveries[i]
		})
	}
	var mu sync.Mutex
	sender, err := webhooktest.NewSender(*to, *secret, webhooktest.Config{
		Seed: *seed, Duplicate: float64(dup), MaxInFlight: *at, RetrySpeed: *retry, NoRetry: *retry == 0,
		OnAttempt: func(a webhooktest.Attempt) {
			mu.Lock()
			defer mu.Unlock()
			result := fmt.Sprint(a.Status)
			if a.Err != nil {
				result = a.Err.Error()
			}
			note := ""
			switch {
			case a.Duplicate:
				note = " duplicate"
			case a.Number > 0:
				note = fmt.Sprintf(" redelivery %d", a.Number)
			}
			fmt.Fprintf(stdout, "%s %s %s %s %s%s\n", result, a.End.Sub(a.Start).Round(100*time.Microsecond), a.Topic, a.Shop, a.WebhookID, note)
		},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	ledger, err := sender.Send(ctx, deliveries)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "sent %d, acknowledged %d, redelivered %d, duplicated %d\n", ledger.Sent, ledger.Acknowledged, ledger.Redelivered, ledger.Duplicated)
	if ledger.Acknowledged < *n {
		return fmt.Errorf("%d of %d deliveries were not acknowledged", *n-ledger.Acknowledged, *n)
	}
	return nil
}

// sampleBody reads the body to send: a file's, or the topic's sample.
func sampleBody(topic, file string) ([]byte, error) {
	if file != "" {
		return os.ReadFile(file)
	}
	if !slices.Contains(webhooktest.Topics(), topic) {
		return nil, fmt.Errorf("%w: send: topic %q has no sample body; give one with -body, or see: breakwater send topics", errUsage, topic)
	}
	return webhooktest.Payload(topic), nil
}

// share is a flag that may stand alone, which means all, or have a value from 0 to 1.
type share float64

func (s *share) String() string   { return "0" }
func (s *share) IsBoolFlag() bool { return true }

func (s *share) Set(text string) error {
	if text == "true" {
		*s = 1
		return nil
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= 0 && v <= 1) {
		return errors.New("want a share from 0 to 1")
	}
	*s = share(v)
	return nil
}

// numbered gives the i-th delivery a resource of its own: i is added to the ID that the body is about,
// wherever it stands. A body whose ID is no number, or so short that its digits stand for other things too,
// stays as it is.
func numbered(topic string, body []byte, i int) []byte {
	subject := webhook.Subject(topic, body)
	digits := subject[strings.LastIndexByte(subject, '/')+1:]
	id, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || i == 0 || len(digits) < 6 {
		return body
	}
	return bytes.ReplaceAll(body, []byte(digits), strconv.AppendUint(nil, id+uint64(i), 10)) //nolint:gosec // i counts from 0
}
