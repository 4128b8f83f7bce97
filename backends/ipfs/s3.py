"""`ipfs+s3://`: a bucket that a node with the S3 datastore plugin reads. The bucket is reached through S3Backend, with all of its options.

    ipfs+s3://HOST[:PORT]/BUCKET[/rootDirectory]        ipfs+s3://REGION/BUCKET[/rootDirectory]    AWS
    ipfs+s3:///                                         with the option datastore-spec: as that file says

The option `datastore-spec` names a file with the plugin's configuration (spec.py); a URL beside it must say the same. Keys in that file are
used; without them those of the authentication file; without those what AWS's programs use.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from s3cfs.backends.base import Backend
from s3cfs.backends.ipfs.collector import EVERY_H, Collecting
from s3cfs.backends.ipfs.crowd import HELPERS, Crowd
from s3cfs.backends.ipfs.datastore import MOUNTPOINTS, Datastore, clean_root
from s3cfs.backends.ipfs.names import MAIN
from s3cfs.backends.ipfs.objects import IpfsBackend
from s3cfs.backends.ipfs.spec import OPTION, SCHEME, Spec
from s3cfs.backends.layer import Layer
from s3cfs.backends.s3c import POOL_CONNECTIONS, AwsBackend, S3Backend
from s3cfs.backends.url import Credentials, Options, StoreUrl
from s3cfs.errors import ConfigError

_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d{1,2}")


class _Bucket(S3Backend):
    CONNECTIONS: ClassVar[int] = POOL_CONNECTIONS + HELPERS


class _AwsBucket(AwsBackend):
    CONNECTIONS: ClassVar[int] = POOL_CONNECTIONS + HELPERS


class IpfsS3Backend(IpfsBackend):
    """See the module's text."""

    OPTIONS: ClassVar[Mapping[str, str]] = {
        **S3Backend.OPTIONS,
        OPTION: "file with the configuration of the node's S3 plugin, its Datastore.Spec, or all of its config",
        "mountpoint": "where the node mounts the plugin: /blocks (default) or /",
        "names": f"which name table, where one bucket holds several filesystems (default {MAIN})",
        "collect": f"hours between two looks for blocks that nothing needs any more (default {EVERY_H:g}; 0: only `s3cfs ipfs gc`)",
    }

    def __init__(self, spec: Spec, bucket: S3Backend, table: str, collect_h: float) -> None:
        self.spec, self._collect_h = spec, collect_h
        super().__init__(Datastore(bucket, spec.root, spec.mountpoint, Crowd()), table, spec.url)

    @classmethod
    def from_url(cls, url: StoreUrl, options: Options, credentials: Credentials) -> Backend:
        spec = spec_of(url, options)
        inner = inner_options(spec, options)
        place = StoreUrl(SCHEME, spec.host, f"/{spec.bucket}")
        if spec.access_key:
            credentials = Credentials(spec.access_key, spec.secret_key)
        kind = _Bucket if spec.endpoint else _AwsBucket
        Options(place, inner).refuse_unknown(kind.OPTIONS)
        return cls(spec, kind(place, Options(place, inner), credentials), options.text("names", MAIN), _hours(options))

    def layers(self) -> Sequence[Layer]:
        return (Collecting(self, self._collect_h),) if self._collect_h else ()


def spec_of(url: StoreUrl, options: Options) -> Spec:
    """What URL and options mean, as the node's plugin would have it. ConfigError; makes no request."""
    if OPTION in options.values:
        spec = Spec.load(options.text(OPTION))
        said = f"{url.host}{url.path}".strip("/")
        if said and said != spec.url.partition("://")[2]:
            raise ConfigError(f"{url} is not what the spec says, which is {spec.url}: leave the URL at {SCHEME}:///")
        if options.text("mountpoint", spec.mountpoint) != spec.mountpoint:
            raise ConfigError(f"the spec mounts the plugin at {spec.mountpoint}: leave out the backend option mountpoint")
        return spec
    if not url.host:
        raise ConfigError(f"{url}: expected {SCHEME}://HOST[:PORT]/BUCKET[/rootDirectory], or the backend option {OPTION}")
    bucket, prefix = url.bucket_and_prefix()
    mountpoint = options.choice("mountpoint", MOUNTPOINTS)
    region = options.text("region", options.text("sig-region", "us-east-1"))
    if _REGION.fullmatch(url.host):
        return Spec(url.host, bucket, clean_root(prefix), mountpoint=mountpoint)
    return Spec(region, bucket, clean_root(prefix), f"{'http' if options.flag('no-ssl') else 'https'}://{url.host}", mountpoint=mountpoint)


def inner_options(spec: Spec, options: Options) -> dict[str, str]:
    """Those of the bucket. Bodies are small, so none waits for "100 Continue"."""
    own = IpfsS3Backend.OPTIONS.keys() - S3Backend.OPTIONS.keys()
    inner = {"disable-expect100": "", **{name: value for name, value in options.values.items() if name not in own}}
    if OPTION in options.values:
        for name in ("region", "sig-region", "no-ssl"):
            if name in inner:
                raise ConfigError(f"the spec says that: leave out the backend option {name}")
        if spec.endpoint:
            inner["region"] = spec.region
            inner.update({"no-ssl": ""} if spec.endpoint.startswith("http://") else {})
        if spec.session_token:
            inner["session-token"] = spec.session_token
    return inner


def _hours(options: Options) -> float:
    text = options.text("collect", f"{EVERY_H:g}")
    try:
        hours = float(text)
    except ValueError:
        hours = -1.0
    if not (hours == 0 or 0.01 <= hours <= 8760):
        raise ConfigError(f"backend option collect is a number of hours, or 0, not {text!r}")
    return hours
