"""URLs, sizes, durations and -o: what is understood and what is refused."""
from __future__ import annotations

import pytest

from s3cfs.cli import fstab
from s3cfs.config import format_duration, format_size, normalise, parse_duration, parse_size
from s3cfs.config.options import parse_compress
from s3cfs.errors import UsageError


@pytest.mark.parametrize(("given", "normal"), [
    ("s3c://Host.Example:9000/Bucket/a//b/", "s3c://host.example:9000/Bucket/a/b"),
    ("S3C://127.0.0.1:8080/b1", "s3c://127.0.0.1:8080/b1"),
    ("s3c://[::1]:8080/b1/", "s3c://[::1]:8080/b1"),
    ("s3://eu-central-1/my.bucket/x", "s3://eu-central-1/my.bucket/x"),
    ("storjs3://gateway.storjshare.io/bucket/", "storjs3://gateway.storjshare.io/bucket"),
    ("IPFS+s3://Host:9000/bucket/root/", "ipfs+s3://host:9000/bucket/root"),
    ("ipfs+s3:///", "ipfs+s3://"),
    ("local:///srv//store/../store/", "local:///srv/store"),
    ("local:////srv", "local:///srv"),
    ("memory://x", "memory://x"),
])
def test_urls(given: str, normal: str):
    assert normalise(given) == normal == normalise(normal)


@pytest.mark.parametrize(("url", "message"), [
    ("s3c://host/bucket/" + "x" * 851, "longer than 850 bytes"), ("local:///\udcff", "is not utf-8 text"),
    ("", "not a storage URL"), ("/srv/store", "a folder is local:///srv/store"), ("s3c://host", "bucket is missing"),
    ("s3c://host/", "bucket is missing"), ("s3c://", "not a host"), ("s3c:///bucket", "not a host"), ("s3c://host:99999/b1", "not a port"),
    ("s3c://host:/b1", "not a port"), ("s3c://joe:HUNTER2@host/bucket", "must not hold a login"), ("s3c://host/b?x=y", "bucket's name"),
    ("s3c://host/b1/../c", "must not hold '.'"), ("local://store", "absolute path"), ("memory://", "something must follow"),
    ("ipfs+s3://host", "bucket is missing"), ("ipfs+s3:///bucket", "not a host"),
    ("joe:HUNTER2@host/bucket", "not a storage URL"), ("s3c://host/b1/\n", "control character"),
])
def test_urls_refused_in_one_line(url: str, message: str):
    with pytest.raises(UsageError, match=message) as caught:
        normalise(url)
    assert "HUNTER2" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "size"), [
    ("10G", 10 << 30), ("10GiB", 10 << 30), ("10GB", 10 << 30), ("512MiB", 512 << 20), ("1.5k", 1536), ("0", 0), ("7B", 7),
    (" 2 T ", 2 << 40)])
def test_sizes(text: str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "10", "G", "-1G", "1e9B", "10X", "99999999P"])
def test_sizes_refused(text: str):
    with pytest.raises(ValueError, match="."):
        parse_size(text)


@pytest.mark.parametrize(("text", "seconds"), [
    ("5", 5), ("5s", 5), ("1m", 60), ("1.5h", 5400), ("250ms", 0.25), ("2d", 172800), ("3min", 180)])
def test_durations(text: str, seconds: float):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5 parsecs", "-5s", "nan", "inf"])
def test_durations_refused(text: str):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_written_sizes_and_durations():
    assert [format_size(n) for n in (0, 1023, 1024, 1536, 10 << 30, (1 << 20) - 1, 1 << 70)] == [
        "0 B", "1023 B", "1.00 KiB", "1.50 KiB", "10.0 GiB", "1.00 MiB", "1048576 PiB"]
    assert [format_duration(s) for s in (0.31, 12, 250, 11100, 183600, float("inf"))] == [
        "0.3 s", "12 s", "4 min 10 s", "3 h 05 min", "2 d 3 h", "-"]


def test_compress():
    assert [parse_compress(text) for text in ("zstd", "zstd-19", "none", "ZSTD-1")] == [3, 19, None, 1]
    for text in ("zstd-0", "zstd-20", "gzip", "zstd-", ""):
        with pytest.raises(ValueError, match="is not zstd"):
            parse_compress(text)


def test_fstab_options():
    found = fstab.parse([
        "rw,_netdev,nofail,noauto,user=joe,x-systemd.automount,X-foo=1,comment=bla,allow_other,cachesize=20G",
        r"nosuid,nodev,noatime,relatime,context=\"system_u:object_r:t:s0:c1,c2\",authfile=/etc/a\,b.ini,sync=remote,ro"
        .replace('\\"', '"')])
    assert found.given == {"allow-other": True, "cachesize": "20G", "authfile": "/etc/a,b.ini", "sync": "remote", "read-only": True}
    assert found.passed == ["nosuid", "nodev", "noatime", 'context="system_u:object_r:t:s0:c1,c2"']


@pytest.mark.parametrize(("text", "message"), [
    ("bogus", "unknown mount option 'bogus'"), ("bogus=HUNTER2", "unknown mount option 'bogus'$"), ("cachesize", "needs a value"),
    ("sync", "sync=remote"), ("uid=7", "owners and modes of their own"), ("fs-passphrase=HUNTER2", "secrets never"),
    ("backend_password=HUNTER2", "secrets never"),
    ("authfile=", "needs a value"),
])
def test_fstab_options_refused(text: str, message: str):
    with pytest.raises(UsageError, match=message) as caught:
        fstab.parse([text])
    assert "HUNTER2" not in str(caught.value)


def test_sloppy_drops_what_is_unknown():
    assert fstab.parse(["bogus,ro"], sloppy=True).given == {"read-only": True}
