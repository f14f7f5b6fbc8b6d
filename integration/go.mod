module github.com/breakwater-go/breakwater/integration

go 1.26
