package cache_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/breakwater-go/breakwater/cache"
)

// A product is loaded once, however many ask, until its webhook comes.
func Example() {
	titles := map[int]string{1: "Tea"}
	products, err := cache.New(func(_ context.Context, id int) (string, error) {
		fmt.Println("loading", id)
		title, ok := titles[id]
		if !ok {
			return "", cache.ErrNotFound
		}
		return title, nil
	}, cache.Config[int, string]{TTL: 5 * time.Minute})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	for range 3 {
		title, _ := products.Get(ctx, 1)
		fmt.Println(title)
	}
	titles[1] = "Green tea"
	update := cache.InvalidateOn(products, func(id int) int { return id }, func(ctx context.Context, id int) error {
		title, err := products.Get(ctx, id)
		fmt.Println("syncing", title)
		return err
	})
	_ = update(ctx, 1)
	_, err = products.Get(ctx, 2)
	fmt.Println(errors.Is(err, cache.ErrNotFound), err)
	// Output:
	// loading 1
	// Tea
	// Tea
	// Tea
	// loading 1
	// syncing Green tea
	// loading 2
	// true cache: "2": cache: not found
}

// A tag is another name to invalidate entries by: those of variants by their product.
func ExampleCache_InvalidateTags() {
	type variant struct{ Product, Price string }
	price := "1.00"
	variants, err := cache.New(func(_ context.Context, _ string) (variant, error) { return variant{"product/7", price}, nil }, cache.Config[string, variant]{
		Key:  func(id string) cache.Key { return cache.Key{Scope: "a.myshopify.com", ID: id} },
		Tags: func(_ string, v variant) []string { return []string{v.Product} },
	})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	got, _ := variants.GetMany(ctx, []string{"variant/1", "variant/2"})
	fmt.Println(got["variant/1"].Price, got["variant/2"].Price)
	price = "2.00"
	_ = variants.InvalidateTags(ctx, "a.myshopify.com", "product/7")
	got, _ = variants.GetMany(ctx, []string{"variant/1", "variant/2"})
	fmt.Println(got["variant/1"].Price, got["variant/2"].Price)
	// Output:
	// 1.00 1.00
	// 2.00 2.00
}
