"""The demo: a public storefront that calls an internal warehouse."""
