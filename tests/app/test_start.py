"""What the first page costs: no model library is imported to paint it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.app.conftest import APP

PAINT = """
import sys
from streamlit.testing.v1 import AppTest
app = AppTest.from_file(sys.argv[1], default_timeout=60).run()
assert not app.exception, app.exception
assert [c for c in app.get("bidi_component") if c.proto.component_name == "nla_token_strip"]
app.switch_page("pages/about.py").run()
assert not app.exception, app.exception
heavy = {"torch", "transformers", "sentence_transformers", "tokenizers", "scipy", "sklearn"}
print(",".join(sorted(heavy & set(sys.modules))))
"""


def test_pages_are_painted_without_a_model_library(dataset_root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PAINT, str(APP)],
        cwd=APP.parent,
        env=os.environ | {"NLA_DATA": str(dataset_root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == ""
