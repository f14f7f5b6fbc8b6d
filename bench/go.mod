module github.com/breakwater-go/breakwater/bench

go 1.26

require github.com/breakwater-go/breakwater v0.0.0

replace github.com/breakwater-go/breakwater => ../
