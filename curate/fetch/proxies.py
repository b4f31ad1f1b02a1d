"""Say which proxy the environment names for a URL."""

from collections.abc import Mapping
from urllib.request import getproxies_environment, proxy_bypass

from .urls import Link


def environment_proxies() -> Mapping[str, str]:
    """Return the proxies that the environment names, by scheme; "all" stands for the others."""
    return getproxies_environment()


def proxy_for(link: Link, proxies: Mapping[str, str]) -> str:
    """Return the proxy for a link; empty where there is none, or no_proxy names the host."""
    if not proxies or proxy_bypass(link.host):
        return ""
    return proxies.get(link.scheme) or proxies.get("all", "")
