"""Requests to the real server: those of clients as they came, and a few of the gateway's own, signed with the server's credentials.

SigV4 signs the Host header and not the address, so a request that is passed on with its own Host keeps a valid signature.
What the gateway answers by itself (listings, batches of deletions) it checks for a signature as the server would.
"""
from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.gateway.index import Entry

BLOCK = 1 << 18
TIMEOUT_S = 120.0
HOP_BY_HOP = ("connection", "expect", "keep-alive", "transfer-encoding")
REGION = "us-east-1"
_AUTHORIZATION = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/([^/]+)/s3/aws4_request, ?"
                            r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Upstream:
    """`host`: "127.0.0.1:9000"."""

    host: str
    login: str
    password: str

    def send(self, method: str, target: str, headers: Iterable[tuple[str, str]], body: Iterable[bytes]) -> http.client.HTTPResponse:
        """One request on a connection of its own, which is closed with the answer."""
        connection = http.client.HTTPConnection(self.host, timeout=TIMEOUT_S)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                if name.lower() not in HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.putheader("Connection", "close")
            connection.endheaders()
            for piece in body:
                connection.send(piece)
            return connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def own(self, method: str, bucket: str, key: str, query: str = "", body: bytes = b"") -> tuple[int, bytes, http.client.HTTPMessage]:
        """A request of the gateway's own."""
        target = f"/{bucket}" + (f"/{quote(key, safe='/~')}" if key else "") + (f"?{query}" if query else "")
        request = AWSRequest(method, f"http://{self.host}{target}", data=body, headers={"Content-MD5": md5(body)} if body else {})
        S3SigV4Auth(Credentials(self.login, self.password), "s3", REGION).add_auth(request)
        headers = [*request.headers.items(), ("Content-Length", str(len(body))), ("Host", self.host)]
        answer = self.send(method, target, headers, [body] if body else [])
        with answer:
            return answer.status, answer.read(), answer.headers

    def get(self, bucket: str, key: str) -> bytes | None:
        status, body, _ = self.own("GET", bucket, key)
        return body if status == 200 else None

    def delete(self, bucket: str, key: str) -> int:
        status, _, _ = self.own("DELETE", bucket, key)
        return status

    def objects(self, bucket: str) -> Iterator[tuple[str, Entry]]:
        """Everything in the bucket, by `bucket/key`."""
        token = ""
        while True:
            query = ("continuation-token=" + quote(token, safe="") + "&" if token else "") + "list-type=2"
            status, body, _ = self.own("GET", bucket, "", query)
            if status != 200:
                raise RuntimeError(f"the server behind answers {status} to a listing of {bucket}: {body[:300]!r}")
            page = ElementTree.fromstring(body)
            for item in page.findall("{*}Contents"):
                key = f"{bucket}/{item.findtext('{*}Key')}"
                yield key, Entry(int(item.findtext("{*}Size") or 0), item.findtext("{*}ETag") or '""', 0.0)
            token = page.findtext("{*}NextContinuationToken") or ""
            if not token:
                return

    def refusal(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> str:
        """The code with which a request that is not signed as it should be is refused; "" when it is. Names of headers in lower case."""
        found = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if not found:
            return "AccessDenied"
        login, region, names, signature = found.groups()
        if login != self.login:
            return "InvalidAccessKeyId"
        signed = {name: headers.get(name, "") for name in names.split(";")}
        said = signed.get("x-amz-content-sha256", "")
        if said != "UNSIGNED-PAYLOAD" and said != hashlib.sha256(body).hexdigest():
            return "XAmzContentSHA256Mismatch"
        request = AWSRequest(method, f"http://{headers.get('host', '')}{target}", headers=signed)
        request.context["timestamp"] = signed.get("x-amz-date", "")
        auth = S3SigV4Auth(Credentials(self.login, self.password), "s3", region)
        expected = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
        return "" if hmac.compare_digest(expected, signature) else "SignatureDoesNotMatch"


def md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body).digest()).decode()
