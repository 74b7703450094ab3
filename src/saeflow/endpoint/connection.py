"""One request to an endpoint by the client `openai`, within bounds: of time, of size, and of whom
it reaches."""

from __future__ import annotations

import asyncio
import base64
import io
import ipaddress
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl, urlsplit
from urllib.request import getproxies

import aiohttp
import certifi
import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI

from saeflow.config.addresses import fault_of_address
from saeflow.config.sections import Calls, Judge
from saeflow.endpoint.keys import NO_KEY, find_key
from saeflow.errors import SaeflowError

OPENAI = "https://api.openai.com/v1"
LARGEST_BODY = 4 * 2**20  # bytes; an answer is a thousandth of it
# Of the request that a task makes.
_largest: ContextVar[int] = ContextVar("largest", default=LARGEST_BODY)


class UnreachedError(Exception):
    """There is no whole answer; says why."""


class Reply(NamedTuple):
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class RawResponse(Protocol):
    """What the client's ``with_raw_response`` gives."""

    @property
    def http_response(self) -> httpx2.Response:
        """The response, whose body nobody has interpreted."""


class Connection:
    """The way to one endpoint.

    Nothing is sent anywhere else: a redirect is a reply like any other. And no more is read than
    was agreed.

    The client's own retries are off: they would be seen neither by the budget nor by the other
    calls, which must slow down too.

    Raises:
        SaeflowError: there is no key, or the address, the key or the proxy cannot be used.
    """

    def __init__(self, judge: Judge, calls: Calls) -> None:
        self._key = key = find_key(calls)
        address, _, self._query = find_address(judge, calls).partition("?")
        self.address = address.rstrip("/")
        self._proxy = proxy_of(self.address)
        sent = authorization(key).partition(" ")[2]
        secrets = {
            key,
            sent,
            key.rpartition(" ")[2],
            key.rpartition(":")[2],
            urlsplit(self._proxy or "").password,
        }
        self._secrets = sorted(
            (secret for secret in secrets if secret and secret != NO_KEY), key=len, reverse=True
        )
        self._client: AsyncOpenAI | None = None

    async def send(
        self,
        request: Callable[[AsyncOpenAI], Awaitable[httpx2.Response | RawResponse]],
        *,
        seconds: float,
        largest: int = LARGEST_BODY,
    ) -> Reply:
        """Send one request and read what comes back.

        Args:
            request: a call of the client, for an ``httpx2.Response`` or of its
                ``with_raw_response``.
            seconds: that all may take, from beginning to end.
            largest: bytes that the body may have.

        Raises:
            UnreachedError: the connection, the time or the bytes do not suffice.
        """
        _largest.set(largest)
        try:
            async with asyncio.timeout(seconds):  # the client's own begins anew with every byte
                answer = await request(self._opened())
                response = answer if isinstance(answer, httpx2.Response) else answer.http_response
        except APIStatusError as error:
            response = error.response
        except TimeoutError:
            raise UnreachedError(f"no answer within {seconds:g} s") from None
        except UnreachedError:
            raise
        # Whatever a strange server makes the client raise is the end of this request and of nothing
        # else.
        except Exception as error:
            cause = error.__cause__ if isinstance(error, APIConnectionError) else None
            raise UnreachedError(
                f"the connection failed ({self.redacted(first_line(cause or error))})"
            ) from None
        return Reply(response.status_code, response.extensions["headers"], response.content)

    def redacted(self, text: str) -> str:
        """A text without key and passwords, which servers are known to repeat in their
        complaints."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    async def close(self) -> None:
        """Close the connections."""
        if self._client:
            await self._client.close()

    def _opened(self) -> AsyncOpenAI:
        """The client, which must be made within the event loop."""
        if self._client is None:
            headers = {"Authorization": authorization(self._key), "User-Agent": "saeflow"}
            if self._query:  # Azure, which takes keys under a name of its own
                headers["api-key"] = self._key
            self._client = AsyncOpenAI(
                api_key=self._key,
                base_url=self.address,
                default_query=dict(parse_qsl(self._query)),
                max_retries=0,
                timeout=None,
                http_client=httpx2.AsyncClient(
                    transport=_Bounded(headers, self._proxy),
                    follow_redirects=False,
                    trust_env=False,
                    timeout=None,
                ),
            )
        return self._client


class _Bounded(httpx2.AsyncBaseTransport):
    """What carries the client's requests: it tells a server what it must know, and takes from it
    what was agreed.

    Of a request's headers only ours and the type of its body are sent: the client adds those that
    tell of this machine or that the environment names. Of a response the client sees no header, so
    that it heeds none, be it an address that leads on, an encoding or a cookie; they are handed on
    beside it, as its extension ``headers``.

    Args:
        headers: that every request has.
        proxy: on the way to the server.
    """

    def __init__(self, headers: Mapping[str, str], proxy: str | None) -> None:
        self._proxy = proxy
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=_authorities()),
            headers={"Accept-Encoding": "identity", **headers},
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and read what comes back.

        Raises:
            UnreachedError: the answer is compressed, or longer than what `Connection.send` was
                told.
        """
        content = await request.aread()
        async with self._session.request(
            request.method,
            str(request.url),
            data=io.BytesIO(content) if content else None,
            headers={
                name: request.headers[name] for name in ("Content-Type",) if name in request.headers
            },
            proxy=self._proxy,
            allow_redirects=False,
        ) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                # And may be a bomb.
                raise UnreachedError("the answer is compressed, which was not asked for")
            body = await _read(response.content, _largest.get())
        return httpx2.Response(
            response.status, content=body, extensions={"headers": response.headers}
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()


async def _read(stream: aiohttp.StreamReader, largest: int) -> bytes:
    body = bytearray()
    while piece := await stream.readany():
        body += piece
        if len(body) > largest:
            raise UnreachedError(f"the answer is longer than {largest:,} bytes")
    return bytes(body)


def _authorities() -> ssl.SSLContext:
    """Whom to believe who a server is: the system's authorities, and certifi's, as many systems
    have none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def find_address(judge: Judge, calls: Calls) -> str:
    """Where the endpoint is: what the config says, else ``OPENAI_BASE_URL`` where it says anything,
    else OpenAI.

    Raises:
        SaeflowError: it is no address, or holds what must not be recorded.
    """
    address = (calls.base_url or os.environ.get("OPENAI_BASE_URL", "")).strip() or OPENAI
    if fault := fault_of_address(address, calls.key):
        raise SaeflowError(f"{'calls.base_url' if calls.base_url else 'OPENAI_BASE_URL'}: {fault}")
    return address


def authorization(key: str) -> str:
    """The header for a key; one that opens with a scheme is the whole header, ``Basic
    NAME:PASSWORD`` in plain text."""
    scheme, _, rest = key.partition(" ")
    if scheme == "Basic" and ":" in rest:
        return f"Basic {base64.b64encode(rest.encode()).decode()}"
    return key if scheme in ("Basic", "Bearer") and rest else f"Bearer {key}"


def proxy_of(address: str) -> str | None:
    """The proxy that the environment names for an address; none for this machine and for what
    ``NO_PROXY`` names.

    Raises:
        SaeflowError: it is none that speaks HTTP.
    """
    parts, proxies = urlsplit(address), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or _is_direct(parts.hostname or "", proxies.get("no", "")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if (scheme := urlsplit(proxy).scheme) not in ("http", "https"):
        ways = f"set {parts.scheme}_proxy to an HTTP proxy, or add {parts.hostname} to no_proxy"
        raise SaeflowError(
            f"the environment names a proxy '{scheme}://', which the judge cannot use; {ways}"
        )
    return proxy


def _is_direct(host: str, exceptions: str) -> bool:
    """Whether a host is reached without a proxy; ``NO_PROXY`` holds hosts, domains and networks, or
    ``*`` for all."""
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        number = None
    if host == "localhost" or (number and number.is_loopback):
        return True
    for entry in (entry.strip() for entry in exceptions.split(",")):
        name = entry.lstrip("*.").lower()
        if entry == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return True
        try:
            if number and number in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:  # a name
            continue
    return False


def first_line(value: object, longest: int = 200) -> str:
    """A complaint as one short line that can be printed and stored: half characters and control
    codes go."""
    try:
        text = str(value)[: 100 * longest].encode("utf-8", "replace").decode()
    except (RecursionError, ValueError):
        return "what cannot be shown"
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:longest]
