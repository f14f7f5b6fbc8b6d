module github.com/breakwater-go/breakwater/examples

go 1.26

require github.com/breakwater-go/breakwater v0.0.0

replace github.com/breakwater-go/breakwater => ../
