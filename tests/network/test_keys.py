"""Key files: whole or not at all, never overwritten, open to their owner only."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import zmq

from network import keys
from network.errors import KeyFileError
from network.keys import WORLD, Identity, Members, agent_name, load_identity, make_keys

NAMES = [WORLD, agent_name(0), agent_name(12)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys", NAMES)
    return tmp_path / "keys"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_each_name_gets_a_pair_and_all_the_list(folder: Path) -> None:
    members = Members.load(folder / "members.json")
    assert members.names == ("world", "agent-0", "agent-12")
    secrets = set()
    for name in NAMES:
        identity = load_identity(folder / f"{name}.key")
        assert identity.name == name
        assert members.public_key(name) == identity.public_key
        assert members.name_of(identity.public_key) == name
        assert zmq.curve_public(identity.secret_key.encode()) == identity.public_key.encode()
        secrets.add(identity.secret_key)
    assert len(secrets) == 3
    assert not any(secret in (folder / "members.json").read_text() for secret in secrets)
    assert members.name_of("x" * 40) is None


def test_the_path_of_the_list_is_returned(tmp_path: Path) -> None:
    assert make_keys(tmp_path / "a" / "b", [WORLD]) == tmp_path / "a" / "b" / "members.json"


def test_only_the_owner_reads_secrets_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    dump = json.dump

    def look_first(content: Any, file: Any, **more: Any) -> None:
        status = os.fstat(file.fileno())
        modes.append(stat.S_IMODE(status.st_mode) if "secret_key" in content else None)
        dump(content, file, **more)

    monkeypatch.setattr(keys.json, "dump", look_first)
    old = os.umask(0)
    try:
        make_keys(tmp_path / "keys", NAMES)
    finally:
        os.umask(old)
    assert modes == [0o600, 0o600, 0o600, None]
    assert mode(tmp_path / "keys") == 0o700
    assert all(mode(tmp_path / "keys" / f"{name}.key") == 0o600 for name in NAMES)


def test_keys_are_not_overwritten(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(KeyFileError, match="never overwritten"):
        make_keys(folder, NAMES)
    with pytest.raises(KeyFileError, match="never overwritten"):
        make_keys(folder, ["agent-7"])
    with pytest.raises(KeyFileError, match="never overwritten"):
        make_keys(folder / "world.key", NAMES)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["keys"]


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o755)
    make_keys(tmp_path / "keys", NAMES)
    assert mode(tmp_path / "keys") == 0o700


@pytest.mark.parametrize("failing", range(4))
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    dump, calls = json.dump, []

    def full(*arguments: Any, **more: Any) -> None:
        calls.append(1)
        if len(calls) > failing:
            raise OSError(28, "No space left on device")
        dump(*arguments, **more)

    monkeypatch.setattr(keys.json, "dump", full)
    with pytest.raises(KeyFileError, match="No space left"):
        make_keys(tmp_path / "keys", NAMES)
    assert list(tmp_path.iterdir()) == []


def test_who_comes_second_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def somebody_is_faster(source: Path, target: Path) -> None:
        target.mkdir()
        (target / "world.key").write_text("theirs")
        rename(source, target)

    monkeypatch.setattr(keys.os, "rename", somebody_is_faster)
    with pytest.raises(KeyFileError, match="never overwritten"):
        make_keys(tmp_path / "keys", NAMES)
    assert [path.name for path in tmp_path.rglob("*")] == ["keys", "world.key"]


@pytest.mark.parametrize("name", ["", "../up", "a/b", "Agent", "-a", "a\n", "x" * 65])
def test_names_are_plain(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyFileError, match="small letters"):
        make_keys(tmp_path / "keys", [name])
    with pytest.raises(KeyFileError, match="each name once"):
        make_keys(tmp_path / "keys", ["a", "b", "a"])


def test_a_secret_shows_in_no_text(folder: Path) -> None:
    identity = load_identity(folder / "world.key")
    assert identity.secret_key not in f"{identity!r} {identity}"
    assert identity.public_key in repr(identity)


@pytest.mark.parametrize("open_to", [0o640, 0o604, 0o620, 0o601])
def test_a_secret_that_others_may_read_is_refused(folder: Path, open_to: int) -> None:
    path = folder / "world.key"
    path.chmod(open_to)
    with pytest.raises(KeyFileError, match=rf"not mode {open_to:o}; .* chmod 600 {path}"):
        load_identity(path)
    path.chmod(0o400)
    assert load_identity(path).name == "world"


def test_a_list_that_all_may_write_is_refused(folder: Path) -> None:
    path = folder / "members.json"
    path.chmod(0o646)
    with pytest.raises(KeyFileError, match=f"chmod o-w {path}"):
        Members.load(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"key = '.*none.key': expected a readable file; .*f2a2-sim keys"):
        load_identity(tmp_path / "none.key")
    with pytest.raises(KeyFileError, match=r"members = .*readable file"):
        Members.load(tmp_path)


KEY, OTHER = (zmq.curve_keypair()[0].decode() for _ in range(2))
SECRET = zmq.curve_keypair()[1].decode()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "5",
        "\udcff",
        "[" * 100_000,
        json.dumps({"name": "world", "public_key": KEY}),
        json.dumps({"name": "world", "public_key": KEY, "secret_key": SECRET, "more": "x"}),
        json.dumps({"name": "world", "public_key": KEY, "secret_key": 5}),
        json.dumps({"name": "../x", "public_key": KEY, "secret_key": SECRET}),
        json.dumps({"name": "world", "public_key": KEY, "secret_key": SECRET}),
        json.dumps({"name": "world", "public_key": KEY, "secret_key": "x"}),
        json.dumps({"name": "world", "public_key": KEY, "secret_key": "#" * 40}),
        json.dumps({"name": "world", "public_key": KEY, "secret_key": "~" * 40}),
    ],
    ids=range(14),
)
def test_a_damaged_key_is_refused(folder: Path, content: str) -> None:
    path = folder / "world.key"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(KeyFileError, match=r"key = .*copy it again, or make new ones") as caught:
        load_identity(path)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"world": 5}',
        '{"world": "x"}',
        json.dumps({"World": KEY}),
        json.dumps({"a": KEY, "b": KEY}),
    ],
    ids=range(7),
)
def test_a_damaged_list_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "members.json"
    path.write_text(content)
    with pytest.raises(KeyFileError, match="f2a2-sim keys"):
        Members.load(path)


def test_an_unknown_member_is_named_with_the_known_ones() -> None:
    members = Members({"world": KEY, "agent-0": OTHER})
    with pytest.raises(KeyFileError, match=r"member = 'agent-5': expected one of world, agent-0; "):
        members.public_key("agent-5")


def test_identities_are_values() -> None:
    assert Identity("a", KEY, SECRET) == Identity("a", KEY, SECRET)
