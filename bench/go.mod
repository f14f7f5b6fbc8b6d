module github.com/breakwater-go/breakwater/bench

go 1.26.0

require (
	github.com/breakwater-go/breakwater v0.0.0
	github.com/google/go-github/v88 v88.0.0
	github.com/standard-webhooks/standard-webhooks/libraries v0.0.1
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	github.com/google/go-querystring v1.2.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/time v0.16.0 // indirect
)

replace github.com/breakwater-go/breakwater => ../
