"""Hostile cases above the wire: links, redirects, cookies, robots.txt and opt-outs."""

import asyncio

from .hostile_case import (
    Case,
    answer,
    case,
    drip,
    endless,
    in_turn,
    leads,
    ok,
    paths,
    picture,
    then_reset,
    then_silence,
)
from .hostile_pictures import jpeg
from .hostile_server import Behaviour, Request, Wire

AT = "{here_ip}:{here_port}"


def asked(name: str, url: str | None, target: str) -> Case:
    """Return a case of an odd link: which target the server is asked for in the end."""
    return case(name, picture(), url=url, asked=(target,))


LINKS = [
    asked("link_with_spaces", "{here}/a b.jpg", "/a%20b.jpg"),
    asked("link_with_spaces_around", " {here}/a.jpg\n", "/a.jpg"),
    asked("link_with_tab", "{here}/a\tb.jpg", "/ab.jpg"),
    asked("link_not_ascii", "{here}/caf\u00e9/\u56fe.jpg", "/caf%C3%A9/%E5%9B%BE.jpg"),
    asked("link_with_emoji", "{here}/?q=\U0001f600", "/?q=%F0%9F%98%80"),
    asked("link_with_fragment", "{here}/a.jpg#part", "/a.jpg"),
    asked("link_without_path", "{here}?size=9", "/?size=9"),
    asked("link_with_dots", "{here}/a/../../b/./c.jpg", "/b/c.jpg"),
    asked("link_half_escaped", "{here}/100%/%zz/%41.jpg", "/100%/%zz/%41.jpg"),
    asked("link_with_quotes", '{here}/"<x>".jpg', "/%22%3Cx%3E%22.jpg"),
    asked("link_of_breaks", "{here}/a%0D%0AX-Injected:%20yes", "/a%0D%0AX-Injected:%20yes"),
    asked("link_with_backslashes", "http:\\\\" + AT + "\\a.jpg", "/a.jpg"),
    asked("link_in_capitals", f"HTTP://{AT}/A.jpg", "/A.jpg"),
    asked("link_with_nobody_at", f"http://@{AT}/a.jpg", "/a.jpg"),
    asked("link_very_long", "{here}/" + "a" * 8_000, "/" + "a" * 8_000),
    case("link_null", url=None, failure="bad_url"),
    case("link_empty", url="", failure="bad_url"),
    case("link_of_words", url="no link at all", failure="bad_url"),
    case("link_without_scheme", url=f"//{AT}/a.jpg", failure="bad_url"),
    case("link_without_host", url="http://", failure="bad_url"),
    case("link_to_file", url="file:///etc/hostname", failure="bad_url"),
    case("link_of_data", url="data:image/png;base64,iVBORw0KGgo=", failure="bad_url"),
    case("link_to_ftp", url=f"ftp://{AT}/a.jpg", failure="bad_url"),
    case("link_to_gopher", url=f"gopher://{AT}/_GET", failure="bad_url"),
    case("link_to_script", url="javascript:alert(1)", failure="bad_url"),
    case("link_to_port_0", url="http://{here_ip}:0/a.jpg", failure="bad_url"),
    case("link_to_port_65536", url="http://{here_ip}:65536/a.jpg", failure="bad_url"),
    case("link_with_space_in_host", url="http://127.0. 0.1/a.jpg", failure="bad_url"),
    case("link_with_open_bracket", url="http://[::1/a.jpg", failure="bad_url"),
    case("link_to_address_300", url="http://127.0.0.300/a.jpg", failure="bad_url"),
    case("link_with_password", picture(), "credentials", url=f"http://user:secret@{AT}/a.jpg"),
    case("link_with_user", picture(), "credentials", url=f"http://user@{AT}/a.jpg"),
]


async def counts_down(wire: Wire, request: Request) -> None:
    """Redirect /5 to /4 and so on; /0 is the picture."""
    left = int(request.target.rpartition("/")[2])
    await wire.send(leads(f"/{left - 1}") if left else picture())


def slow_steps(pause_s: float) -> Behaviour:
    """Redirect as ``counts_down`` does, each time after a pause that alone would be well."""

    async def behave(wire: Wire, request: Request) -> None:
        await asyncio.sleep(pause_s)
        await counts_down(wire, request)

    return behave


async def wants_no_cookie(wire: Wire, request: Request) -> None:
    """Set a cookie and redirect; whoever brings it, or says where he comes from, is refused."""
    if request.all("cookie") or request.all("referer") or request.all("authorization"):
        await wire.send(answer("400 Bad Request"))
    elif request.target == "/two":
        await wire.send(picture())
    else:
        await wire.send(leads("/two", "302 Found", "Set-Cookie: track=1; Path=/"))


def two(location: str, status: str = "302 Found", *headers: str) -> Behaviour:
    """Redirect to ``location``; whatever is asked of /two is the picture."""
    return paths(leads(location, status, *headers), two=picture())


def text(rules: str | bytes) -> bytes:
    """Return an answer that is a robots.txt."""
    return ok(rules if isinstance(rules, bytes) else rules.encode(), kind="text/plain")


NO = "User-agent: *\nDisallow: /\n"
STREAM = leads("/two").replace(b"Content-Length: 0\r\n", b"")


def hop(name: str, location: str, failure: str, **facts: object) -> Case:
    """Return a case of a redirect that must not be followed."""
    return case(f"leads_{name}", leads(location), failure, **facts)


REDIRECTS = [
    *[
        case(f"status_{status[:3]}", two("/two", status))
        for status in ("301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent")
    ],
    case("leads_relative", two("two"), url="{here}/deep/one", asked=("/deep/one", "/deep/two")),
    case("leads_up", two("../two?a=b#c"), url="{here}/a/b/one", asked=("/a/b/one", "/a/two?a=b")),
    case("leads_with_spaces", two("/x y/two"), asked=("/picture.jpg", "/x%20y/two")),
    case("leads_not_ascii", two("/caf\xc3\xa9/two"), asked=("/picture.jpg", "/caf%C3%A9/two")),
    case("leads_without_scheme", two(f"//{AT}/two")),
    case("leads_elsewhere", leads("{there}/picture.jpg"), there=picture()),
    case("leads_five_times", counts_down, url="{here}/5"),
    case("leads_six_times", counts_down, "redirects", url="{here}/6"),
    hop("to_itself", "/picture.jpg", "redirects"),
    case("leads_in_a_circle", leads("{there}/"), "redirects", there=leads("{here}/a")),
    hop("nowhere", "http://[", "redirects"),
    case("leads_without_location", answer("302 Found"), "redirects"),
    hop("to_empty", "", "redirects"),
    hop("to_file", "file:///etc/hostname", "redirects"),
    hop("to_data", "data:image/png;base64,iVBORw0KGgo=", "redirects"),
    hop("to_ftp", f"ftp://{AT}/a.jpg", "redirects"),
    hop("to_script", "javascript:alert(1)", "redirects"),
    hop("with_password", f"http://user:secret@{AT}/a.jpg", "credentials"),
    hop("to_nobody", "http://127.77.250.250:9/a.jpg", "connect"),
    hop("to_not_found", "{there}/gone.jpg", "not_found"),
    hop("to_robots_there", "{there}/a.jpg", "robots", there=picture(), there_robots=text(NO)),
    case("leads_and_streams", paths(endless(STREAM, bytes(65_536)), two=picture())),
    case("leads_slowly", slow_steps(0.9), "timeout", url="{here}/5", timed=True),
    case("refreshes", ok(jpeg(), "Refresh: 0; url=/canary")),
    case("points_elsewhere", ok(jpeg(), "Location: /canary", "Link: </canary>; rel=preload")),
    case("sets_cookie", wants_no_cookie, asked=("/picture.jpg", "/two")),
    case("breaks_location", paths(leads("/two%0d%0aX-Injected: yes/two"), two=picture())),
]


def rules(name: str, robots: object, failure: str | None = None, **facts: object) -> Case:
    """Return a case whose robots.txt is what matters; the picture itself is sound."""
    return case(f"robots_{name}", picture(), failure, robots=robots, **facts)  # type: ignore[arg-type]


UNENDING = b"HTTP/1.1 200 OK\r\n\r\n" + NO.encode()
ROBOTS = [
    rules("forbids_all", text(NO), "robots", asked=()),
    rules("forbids_us", text("User-agent: Breadth\nDisallow: /pic"), "robots", asked=()),
    rules("forbids_others", text("User-agent: otherbot\nDisallow: /")),
    rules("allows_us", text(f"{NO}\nUser-agent: breadth\nDisallow:\n")),
    rules("longest_wins", text("User-agent: *\nDisallow: /\nAllow: /picture")),
    rules("wildcard", text("User-agent: *\nDisallow: /*.jpg$"), "robots"),
    rules("with_mark", text(b"\xef\xbb\xbf" + NO.encode()), "robots"),
    rules("of_crs", text(NO.replace("\n", "\r")), "robots"),
    rules("of_nuls", text(b"\0\0\0\n" + NO.encode()), "robots"),
    rules("asks_for_ages", text("User-agent: *\nCrawl-delay: 1e12"), asked=("/picture.jpg",)),
    rules("page", ok(b"<html><body>Disallow: /</body></html>", kind="text/html")),
    rules("empty", text("")),
    rules("forbidden", answer("403 Forbidden")),
    rules("throttled", answer("429 Too Many Requests"), "robots_unknown"),
    rules("broken_server", answer("500 Oh"), "robots_unknown", asked=()),
    rules("no_answer", b"", "robots_unknown", asked=()),
    rules("reset", then_reset(), "robots_unknown", asked=()),
    rules("silent", then_silence(), "robots_unknown", asked=(), timed=True),
    rules("drips", drip(text(NO)), "robots_unknown", asked=(), timed=True),
    rules("elsewhere", leads("{there}/robots.txt"), "robots", there_robots=text(NO)),
    rules("five_away", in_turn(*[leads("/robots.txt")] * 5, text(NO)), "robots"),
    rules("of_half_a_megabyte", text(NO + "# more\n" * 90_000), "robots"),
    rules("endless", endless(UNENDING, b"# more\n" * 9_000), "robots"),
    rules("of_one_line", text(NO + "Disallow: /" + "*a" * 50_000), "robots"),
    rules("of_many_stars", text("User-agent: *\nDisallow: /" + "*p" * 60 + "x")),
]


def tagged(name: str, *values: str, failure: str | None = "opt_out") -> Case:
    """Return a case of a picture that X-Robots-Tag headers speak of."""
    return case(f"tag_{name}", ok(jpeg(), *(f"X-Robots-Tag: {v}" for v in values)), failure)


TAGS = [
    tagged("noai", "noai"),
    tagged("capitals", "NoImageAI"),
    tagged("none", "none"),
    tagged("in_a_list", "noarchive,  noindex"),
    tagged("in_the_second", "noarchive", "noai"),
    tagged("behind_a_date", "noarchive, unavailable_after: 25 Jun 2010 15:00:00 PST, noai"),
    tagged("behind_a_size", "max-image-preview: large, noai"),
    tagged("for_us", "Breadth: noimageindex"),
    tagged("for_another", "otherbot: noai, noindex", failure=None),
    tagged("for_another_then_all", "otherbot: noindex", "noai"),
    tagged("harmless", "noarchive, nosnippet, max-image-preview: none", failure=None),
    tagged("alike", "noaiplease, all", failure=None),
    tagged("empty", "", ",,,", failure=None),
    case("tag_where_nothing_is", answer("404 Not Found", "X-Robots-Tag: noai"), "not_found"),
    case(
        "tag_on_redirect",
        paths(picture(), a=leads("/b.jpg", "302 Found", "X-Robots-Tag: noai")),
        "opt_out",
        url="{here}/a.jpg",
        asked=("/a.jpg",),
    ),
]

CASES = [*LINKS, *REDIRECTS, *ROBOTS, *TAGS]
