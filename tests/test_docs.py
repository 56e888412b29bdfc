"The site can be built: pages are made by running what they import and export, which is more than tests run."
import os, shutil, subprocess, sys
from pathlib import Path

from nbdev.config import get_config

ROOT = Path(__file__).resolve().parent.parent


def test_every_notebook_becomes_a_page(tmp_path):
    ignored = shutil.ignore_patterns('.*', '_*', '*.egg-info', 'build', 'dist', 'tests')
    shutil.copytree(ROOT, tmp_path/'site', ignore=lambda folder, names: ignored(folder, names) if Path(folder) == ROOT else [])
    shutil.copy(ROOT/'_quarto.yml', tmp_path/'site')
    env = os.environ | dict(PATH=str(Path(sys.executable).parent)) # neither quarto nor npm: nothing is fetched
    done = subprocess.run([sys.executable, 'tools/build_docs.py'], cwd=tmp_path/'site', env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {page.stem for page in (tmp_path/'site'/'_docs').glob('*.html')}
    notebooks = {path.stem.lstrip('0123456789_') for path in (ROOT/get_config().nbs_path).glob('[!_]*.ipynb')}
    assert notebooks == pages
