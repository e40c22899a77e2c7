"""Get every image that Vantage runs: pulled from a registry, or made from published packages."""
