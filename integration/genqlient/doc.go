// Package genqlient is what genqlient (https://github.com/Khan/genqlient) makes of a few operations of the Admin API. Its test sends them through a shopify.Transport.
package genqlient

//go:generate go tool genqlient
