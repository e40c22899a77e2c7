"""The demo shop: a public storefront that calls an internal warehouse."""
