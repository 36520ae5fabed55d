"""The official checkpoint is read as data: nothing in a hostile file runs."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile

import pytest
import torch

from llamacast.forecast import CheckpointError
from llamacast.model import official
from llamacast.model.official import import_official, read_pickled_archive
from tests.model.reference import TINY


def archive(path, pickled: bytes, storages: dict[str, bytes] | None = None):
    """A zip file as `torch.save` lays it out."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        for key, content in (storages or {}).items():
            file.writestr(f"archive/data/{key}", content)
    return path


class Runs:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.fixture
def marker(tmp_path):
    """A file that exists only if a hostile pickle had its way."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists(), "the pickle ran code"


def test_the_reference_checkpoint_is_imported_whole(golden_path, golden):
    model = import_official(golden_path / "tiny_reference.ckpt")
    assert model.config == TINY
    expected = golden("tiny_model").under("w.")
    named = official.translate_official_weights(expected, "fixture")
    assert {name: weight.shape for name, weight in model.state_dict().items()} == {
        name: weight.shape for name, weight in named.items()
    }


def test_imported_weights_are_those_in_the_file(golden_path):
    """Read beside our reader: each storage's bytes, in the order the official code saved them."""
    model = import_official(golden_path / "tiny_reference.ckpt")
    with zipfile.ZipFile(golden_path / "tiny_reference.ckpt") as file:
        first = file.read("archive/data/0")
        embed = file.read("archive/data/6")
        joint = file.read("archive/data/10")
    assert model.head.df.weight.numpy(force=True).tobytes() == first
    assert model.transformer.embed.weight.numpy(force=True).tobytes() == embed
    attention = model.transformer.blocks[0].attention
    halves = [attention.key.weight.numpy(force=True), attention.value.weight.numpy(force=True)]
    assert b"".join(half.tobytes() for half in halves) == joint


@pytest.mark.parametrize("protocol", [2, 4])
def test_hostile_calls_do_not_run(tmp_path, marker, protocol):
    touch = f"touch {marker}"
    for number, call in enumerate(
        [
            Runs(os.system, touch),
            Runs(eval, f"open({str(marker)!r}, 'w')"),
            Runs(exec, f"open({str(marker)!r}, 'w')"),
            Runs(open, str(marker), "w"),
            Runs(getattr, Runs(__import__, "os"), "system"),
            {"state_dict": [Runs(os.mkdir, str(marker))]},
        ]
    ):
        path = archive(tmp_path / f"{number}.ckpt", pickle.dumps(call, protocol=protocol))
        with pytest.raises(CheckpointError, match=path.name):
            import_official(path)


def test_hostile_state_does_not_run(tmp_path, marker):
    """BUILD with a state, items and attributes on a class that is not ours."""
    pickled = (
        b"\x80\x02cbuiltins\neval\n)\x81}X\x08\x00\x00\x00__init__cos\nsystem\nsb"
        b"(X\x01\x00\x00\x00aX\x01\x00\x00\x00be."
    )
    path = archive(tmp_path / "state.ckpt", pickled)
    with pytest.raises(CheckpointError, match=r"state\.ckpt"):
        import_official(path)


def test_a_hostile_call_inside_a_real_checkpoint_does_not_run(tmp_path, golden_path, marker):
    payload = pickle.dumps(Runs(os.system, f"touch {marker}"), protocol=2)
    path = tmp_path / "poisoned.ckpt"
    with (
        zipfile.ZipFile(golden_path / "tiny_reference.ckpt") as good,
        zipfile.ZipFile(path, "w") as bad,
    ):
        for name in good.namelist():
            content = good.read(name)
            if name.endswith("data.pkl"):
                # call first, drop its result, then the real object
                content = payload[:-1] + b"0" + content.removeprefix(b"\x80\x02")
            bad.writestr(name, content)
    assert import_official(path).config == TINY  # harmless: the call met a placeholder


def test_torch_objects_beyond_tensors_become_placeholders(tmp_path):
    path = tmp_path / "module.ckpt"
    torch.save({"model": torch.nn.Linear(2, 2), "n": 3}, path)
    found = read_pickled_archive(path)
    assert found["n"] == 3
    assert isinstance(found["model"], official.Placeholder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64])
def test_tensors_of_any_layout_are_read(tmp_path, dtype):
    whole = torch.arange(24).reshape(4, 6).to(dtype)
    stored = {"whole": whole, "view": whole.t()[1:4, ::2], "scalar": whole[0, 0], "none": whole[:0]}
    path = tmp_path / "tensors.ckpt"
    torch.save(stored, path)
    found = read_pickled_archive(path)
    for name, tensor in stored.items():
        assert torch.equal(found[name], tensor), name


class TestDamage:
    def refused(self, path, why=""):
        with pytest.raises(CheckpointError, match=f"{path.name}.*{why}") as error:
            import_official(path)
        assert len(str(error.value).splitlines()) == 1

    def test_truncated_files(self, tmp_path, golden_path):
        content = (golden_path / "tiny_reference.ckpt").read_bytes()
        for number, keep in enumerate((0, 10, 1000, len(content) // 2, len(content) - 1)):
            path = tmp_path / f"cut{number}.ckpt"
            path.write_bytes(content[:keep])
            self.refused(path)

    def test_truncated_pickles(self, tmp_path, golden_path):
        with zipfile.ZipFile(golden_path / "tiny_reference.ckpt") as good:
            pickled = good.read("archive/data.pkl")
        for keep in (0, 1, 50, 5000, len(pickled) - 1):
            self.refused(archive(tmp_path / f"pickle{keep}.ckpt", pickled[:keep]))

    def test_other_files(self, tmp_path):
        path = tmp_path / "text.ckpt"
        path.write_text("hello")
        self.refused(path)
        self.refused(tmp_path / "absent.ckpt")
        legacy = tmp_path / "legacy.ckpt"
        torch.save({"a": torch.ones(2)}, legacy, _use_new_zipfile_serialization=False)
        self.refused(legacy)
        other = tmp_path / "other.ckpt"
        torch.save({"state_dict": {"weight": torch.ones(2)}}, other)
        self.refused(other)

    def test_a_tensor_beyond_its_storage(self, tmp_path):
        path = tmp_path / "reach.ckpt"
        torch.save({"a": torch.ones(4)}, path)
        with zipfile.ZipFile(path) as file:
            root = file.namelist()[0].split("/")[0]
            pickled = file.read(f"{root}/data.pkl").replace(b"K\x04\x85", b"K\x09\x85")
            content = file.read(f"{root}/data/0")
        self.refused(archive(tmp_path / "reach2.ckpt", pickled, {"0": content}), "storage")

    def test_a_storage_of_another_size(self, tmp_path):
        path = tmp_path / "size.ckpt"
        torch.save({"a": torch.ones(4)}, path)
        with zipfile.ZipFile(path) as file:
            root = file.namelist()[0].split("/")[0]
            pickled = file.read(f"{root}/data.pkl")
        self.refused(archive(tmp_path / "size2.ckpt", pickled, {"0": b"1234"}), "size")

    def test_oversized_pickles(self, tmp_path, monkeypatch):
        monkeypatch.setattr(official, "LARGEST_PICKLE_BYTES", 1000)
        self.refused(archive(tmp_path / "large.ckpt", b"\x00" * 1001), "pickle")
        monkeypatch.setattr(official, "LARGEST_ARCHIVE_BYTES", 1000)
        self.refused(archive(tmp_path / "larger.ckpt", b"", {"0": b"\x00" * 1001}), "unpacks")

    def test_false_lengths(self, tmp_path):
        for code in (b"\x8e", b"\x8d", b"\x96"):  # 8-byte lengths of bytes, text, bytearray
            pickled = b"\x80\x05" + code + struct.pack("<Q", 2**50) + b"x."
            self.refused(archive(tmp_path / f"long{code[0]}.ckpt", pickled))

    def test_deep_nesting(self, tmp_path):
        buffer = io.BytesIO()
        buffer.write(b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b".")
        self.refused(archive(tmp_path / "deep.ckpt", buffer.getvalue()))

    def test_a_tensor_larger_than_its_storage(self, tmp_path):
        """One number repeated by strides of 0 would fill the memory."""
        path = tmp_path / "small.ckpt"
        torch.save({"a": torch.ones(1).as_strided((3, 3), (0, 0))}, path)
        with pytest.raises(CheckpointError, match="beyond its storage"):
            read_pickled_archive(path)

    def test_memo_places_far_away(self, tmp_path):
        pickled = b"\x80\x02}r" + struct.pack("<I", 2**26) + b"."
        self.refused(archive(tmp_path / "memo.ckpt", pickled), "torch.save")

    def test_nested_keys(self, tmp_path):
        pickled = b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s."
        self.refused(archive(tmp_path / "keys.ckpt", pickled), "torch.save")

    @pytest.mark.parametrize(
        "change",
        [
            {"rope_scaling": torch.ones(2)},
            {"n_embd_per_head": 10**18},
            {"lags_seq": None},
            {"scaling": "max"},
            {"distr_output": "StudentT"},
            {"n_layer": 3},
        ],
    )
    def test_settings_that_do_not_fit(self, tmp_path, golden, change):
        self.refused(self.saved(tmp_path, golden, settings=change))

    @pytest.mark.parametrize(
        "change",
        [
            {"model.transformer.h.0.attn.kv_proj.weight": torch.tensor(1.0)},
            {"model.transformer.h.0.attn.kv_proj.weight": torch.ones(1, 24)},
            {"model.transformer.wte.weight": torch.full((24, 92), torch.nan)},
            {"model.surprise": torch.ones(1)},
            {7: torch.ones(1)},
        ],
    )
    def test_weights_that_do_not_fit(self, tmp_path, golden, change):
        self.refused(self.saved(tmp_path, golden, weights=change))

    def test_a_lone_tensor(self, tmp_path):
        torch.save(torch.ones(3), tmp_path / "lone.ckpt")
        self.refused(tmp_path / "lone.ckpt")

    def test_the_unchanged_checkpoint_is_welcome(self, tmp_path, golden):
        assert import_official(self.saved(tmp_path, golden)).config == TINY

    def saved(self, tmp_path, golden, settings=None, weights=None):
        """The tiny official checkpoint, changed."""
        kwargs = {
            "n_layer": 2,
            "n_head": 3,
            "n_embd_per_head": 8,
            "context_length": 16,
            "max_context_length": 2048,
            "lags_seq": list(TINY.lags),
            "scaling": "robust",
            "time_feat": True,
            "rope_scaling": None,
            "distr_output": StudentTOutput(),
        }
        named = {f"model.{key}": w for key, w in golden("tiny_model").under("w.").items()}
        path = tmp_path / "changed.ckpt"
        torch.save(
            {
                "hyper_parameters": {"model_kwargs": kwargs | (settings or {})},
                "state_dict": named | (weights or {}),
            },
            path,
        )
        return path


class StudentTOutput:
    """Bears the name of GluonTS' class, which is all that is read of it."""
