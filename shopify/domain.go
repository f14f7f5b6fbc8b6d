package shopify

import (
	"errors"
	"fmt"
	"strings"
)

// ErrShop says that a name is not that of a shop.
var ErrShop = errors.New("shopify: not a shop's domain")

// maxDomain is the longest name of a host (RFC 1035, section 2.3.4).
const maxDomain = 253

// CheckDomain says whether a name is a shop's, exactly as example.myshopify.com: lower case letters, digits and hyphens before .myshopify.com, and nothing around them. A name from outside that is
// used to build a URL without that check sends the shop's access token to whoever made it up.
//
// Errors: ErrShop.
func CheckDomain(shop string) error {
	name, ok := strings.CutSuffix(shop, ".myshopify.com")
	if !ok || name == "" || name[0] == '-' || len(shop) > maxDomain {
		return fmt.Errorf("%w: %q; want one such as example.myshopify.com", ErrShop, shop)
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("%w: %q; want one such as example.myshopify.com", ErrShop, shop)
		}
	}
	return nil
}
