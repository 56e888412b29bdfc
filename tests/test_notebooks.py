"Runs every notebook as nbdev_test does, one pytest test each, so that pytest can count them."
from pathlib import Path

import pytest
from nbdev.config import get_config
from nbdev.test import test_nb as run_notebook

root = Path(__file__).resolve().parent.parent
notebooks = sorted(p for p in (root/'nbs').rglob('*.ipynb')
                   if not any(part.startswith(('.', '_')) for part in p.relative_to(root/'nbs').parts))


@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
def test_notebook(path):
    "Every cell runs, except those flagged `#| eval: false` or with a flag of `tst_flags`."
    passed, _ = run_notebook(path, skip_flags=get_config(path=root).tst_flags.split(), basepath=root)
    assert passed, f'{path.name} failed: the traceback is in the captured stderr'
