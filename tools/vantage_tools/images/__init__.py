"""Every image that Vantage runs: pulled where a registry answers, else made from published packages."""
