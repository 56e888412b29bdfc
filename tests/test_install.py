"""The package as a user gets it: a wheel in an environment of its own, without the development extra.

Takes minutes and a package index, so it runs only when asked for: `pytest -m install`, or `make install-test`.
"""
import subprocess, sys, zipfile
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.install

IMPORT_ALL = """
import importlib, pkgutil, sys, refinemotion
names = [m.name for m in pkgutil.iter_modules(refinemotion.__path__) if m.name not in ('data', 'weights')]
for name in names: importlib.import_module(f'refinemotion.{name}')
assert 'nbdev' not in sys.modules
print(refinemotion.__file__, *names)
"""


def run(*command, **kwargs):
    "Run a command; its output is the failure's message."
    done = subprocess.run([str(o) for o in command], capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, f'{command}\n{done.stdout}\n{done.stderr}'
    return done.stdout


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    "A clone, so that only what is committed counts; the folder itself where there is no git."
    if not (root/'.git').exists(): return root
    clone = tmp_path_factory.mktemp('source')/'clone'
    run('git', 'clone', '-q', root, clone)
    return clone


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory):
    "The wheel that pip makes of it."
    folder = tmp_path_factory.mktemp('wheel')
    run(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '-q', '-w', folder, source)
    return next(folder.glob('*.whl'))


def test_wheel_holds_weights_and_clip(source, wheel):
    "What a checkout ships beside the code is in the wheel too."
    beside = [*(source/'data').iterdir(), *(source/'refinemotion'/'weights').glob('*')]
    expected = {f'refinemotion/{p.parent.name}/{p.name}' for p in beside if p.is_file()}
    assert any(p.endswith('.mp4') for p in expected) and any(p.endswith('.safetensors') for p in expected)
    assert expected <= set(zipfile.ZipFile(wheel).namelist())


def test_every_module_imports_with_the_newest_fastcore(wheel, tmp_path):
    "A second environment, the newest of everything the package names; the tested torch, which is large."
    python = tmp_path/'env'/'bin'/'python'
    run(sys.executable, '-m', 'venv', tmp_path/'env')
    torch = next(o for o in (root/'constraints.txt').read_text().splitlines() if o.startswith('torch=='))
    run(python, '-m', 'pip', 'install', '-q', torch)
    run(python, '-m', 'pip', 'install', '-q', '--upgrade-strategy', 'eager', '-U', wheel, torch, 'fastcore')
    assert run(python, '-c', 'import fastcore; print(fastcore.__version__)').split('.')[0] >= '2'
    said = run(python, '-c', IMPORT_ALL, cwd=tmp_path)
    assert str(root) not in said.split()[0]
    run(python.parent/'refinemotion', '--help', cwd=tmp_path)
