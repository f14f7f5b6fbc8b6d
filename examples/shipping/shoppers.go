package main

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// orderID is the name of the n-th order.
func orderID(n int) string { return strconv.Itoa(1001 + n) }

// send sends all orders, each when its time has come, whatever became of those before. It returns how many the app has not taken.
func send(ctx context.Context, url string, all []party, o options) (refused int64) {
	var (
		client  = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
		random  = rand.New(rand.NewPCG(o.Seed, 0))
		tick    = time.NewTicker(o.Every)
		sending sync.WaitGroup
		not     atomic.Int64
	)
	defer client.CloseIdleConnections()
	defer tick.Stop()
	for n := range o.Orders {
		carrier := all[random.IntN(len(all))].name
		sending.Go(func() {
			if status, _, err := post(ctx, client, url, orderID(n), carrier); err != nil || status >= http.StatusBadRequest {
				not.Add(1)
			}
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
			sending.Wait()
			return not.Load()
		}
	}
	sending.Wait()
	return not.Load()
}

// post is what a shopper's click comes to.
func post(ctx context.Context, client *http.Client, url, order, carrier string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/orders/"+order+"/ship?carrier="+carrier, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}
