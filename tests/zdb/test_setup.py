"""The list of servers: both ways to write it, and one clear line for everything that can be wrong with it."""
from __future__ import annotations

from pathlib import Path

import pytest

from s3cfs.backends.zdb import setup
from s3cfs.errors import ConfigError

TOML = """
data = 2
parity = 1
secret = "sesame"
namespace = "s3cfs"
password = "gate-7"
[[servers]]
name = "a"
address = "10.0.0.1:9901"
domain = "rack-a"
[[servers]]
address = "[fd00::2]:9900"
drain = false
password = "other"
[[servers]]
address = "Host.example"
[[servers]]
name = "old"
address = "10.0.0.4:1"
drain = true
admin-password = "admin"
[[meta]]
name = "m"
address = "10.0.0.9:9900"
namespace = "meta"
"""
INI = """
[zdb]
data = 2
parity = 1
secret = sesame
namespace = s3cfs
password = gate-7
[server a]
address = 10.0.0.1:9901
domain = rack-a
[server [fd00::2]:9900]
address = [fd00::2]:9900
drain = no
password = other
[server host.example:9900]
address = Host.example
[server old]
address = 10.0.0.4:1
drain = yes
admin-password = admin
[meta m]
address = 10.0.0.9:9900
namespace = meta
"""


def written(folder: Path, text: str, name: str = "zdb.toml", mode: int = 0o600) -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(("name", "text"), [("zdb.toml", TOML), ("zdb.ini", INI)])
def test_both_ways_say_the_same(tmp_path, name, text):
    found = setup.read(written(tmp_path, text, name))
    assert [server.name for server in found.servers] == ["a", "[fd00::2]:9900", "host.example:9900", "old"]
    assert [server.address for server in found.everyone] == ["10.0.0.1:9901", "[fd00::2]:9900", "host.example:9900", "10.0.0.4:1",
                                                             "10.0.0.9:9900"]
    assert [server.domain for server in found.servers] == ["rack-a", "fd00::2", "host.example", "10.0.0.4"]
    assert [server.password for server in found.everyone] == ["gate-7", "other", "gate-7", "gate-7", "gate-7"]
    assert [server.drain for server in found.servers] == [False, False, False, True]
    assert [server.namespace for server in found.everyone] == ["s3cfs"] * 4 + ["meta"]
    assert (found.servers[3].admin_password, found.servers[0].admin_password) == ("admin", "")
    assert (found.data, found.parity, found.acknowledgements, found.secret) == (2, 1, 3, "sesame")
    for secret in ("sesame", "gate-7", "other", "admin\""):
        assert secret not in repr(found)


def test_defaults_are_16_and_4_and_18(tmp_path):
    servers = "".join(f'[[servers]]\naddress = "h{number}"\n' for number in range(20))
    found = setup.read(written(tmp_path, servers, mode=0o644), "of the authfile")
    assert (found.data, found.parity, found.acknowledgements) == (16, 4, 18)
    assert {(server.port, server.namespace, server.password) for server in found.servers} == {(9900, "default", "of the authfile")}


ONE = '[[servers]]\naddress = "h:1"\n'
SMALL = "data = 1\nparity = 1\n"


@pytest.mark.parametrize(("text", "said"), [
    (ONE, "too few servers: 16 + 4 needs 20, the list has 1"),
    (SMALL + ONE + '[[servers]]\naddress = "g:1"\ndrain = true\n', "the list has 1 (those that drain do not count)"),
    ("colour = 1\n", "unknown key 'colour'"),
    (SMALL + ONE + 'adress = "x"\n', "server h:1: unknown key 'adress'"),
    (SMALL + ONE + ONE, "two servers are called h:1"),
    (SMALL + ONE + 'name = "a"\n' + ONE + 'name = "b"\n', "server b: namespace default at h:1 is there twice"),
    ('[[servers]]\naddress = "h:0"\n', "address is HOST:PORT"),
    ('[[servers]]\naddress = "h:70000"\n', "address is HOST:PORT"),
    ('[[servers]]\nname = "a"\n', "server a: address is HOST:PORT"),
    ('[[servers]]\naddress = 5\n', "address is a text"),
    (ONE + 'drain = "perhaps"\n', "drain is true or false"),
    (ONE + 'name = "a b"\n', "a name has up to 64"),
    (ONE + f'namespace = "{"n" * 129}"\n', "at most 128 bytes"),
    ("data = 0\n", "data is a number from 1 to 254"),
    ("parity = true\n", "parity is a number"),
    ("data = 200\nparity = 100\n", "at most 255 together"),
    ("acknowledgements = 16\n", "acknowledgements is a number from 17 to 20"),
    ("servers = 5\n", "servers are tables"),
    ("data = \n", "is not TOML"),
])
def test_one_clear_line(tmp_path, text, said):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        setup.read(path)
    assert said in str(caught.value) and path in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "said"), [
    ("address = 5\n", "line 1 stands before"), ("[zdb]\ndata\n", "line 2 is not"),
    ("[zdb]\ndata = 1\ndata = 2\n", "line 3: it is there twice"),
    ("[servers]\n", "unknown section [servers]"), ("[server]\n", "unknown section [server]")])
def test_one_clear_line_of_an_ini(tmp_path, text, said):
    with pytest.raises(ConfigError, match="zdb.ini") as caught:
        setup.read(written(tmp_path, text, "zdb.ini"))
    assert said in str(caught.value)


def test_passwords_are_nobody_elses_and_never_told(tmp_path):
    with pytest.raises(ConfigError, match="chmod 600"):
        setup.read(written(tmp_path, TOML, mode=0o640))
    for text, name in (('password = "hush\n', "zdb.toml"), ("[zdb]\nhush hush\n", "zdb.ini"),
                       (f'password = "{"hush" * 40}"\n{ONE}', "zdb.toml")):
        with pytest.raises(ConfigError) as caught:
            setup.read(written(tmp_path, text, name))
        assert "hush" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    for path, said in ((tmp_path / "zdb.json", "a .toml or .ini file"), (tmp_path / "no.toml", "No such file")):
        with pytest.raises(ConfigError, match=said):
            setup.read(str(path))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ConfigError, match="folder.toml"):
        setup.read(str(tmp_path / "folder.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8 text at byte 0"):
        setup.read(str(tmp_path / "binary.toml"))
