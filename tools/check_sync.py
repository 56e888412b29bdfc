"Say so when modules or README.md are not what the notebooks make, or a notebook is not clean; all are put right on the way."
import os, sys
from pathlib import Path

from nbdev.clean import nbdev_clean
from nbdev.config import get_config
from nbdev.doclinks import nbdev_export

from readme import write_readme

ROOT = Path(__file__).resolve().parent.parent


def contents(root: Path = ROOT) -> dict[str, bytes]:
    "The files that export, clean and readme may write."
    cfg = get_config()
    files = [*cfg.lib_path.rglob('*.py'), *cfg.nbs_path.rglob('*.ipynb'), *root.glob('README.md')]
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(files)}


def main():
    os.chdir(ROOT)
    before = contents()
    nbdev_export.__wrapped__()
    nbdev_clean.__wrapped__()
    write_readme()
    after = contents()
    changed = [p for p in sorted(before.keys() | after.keys()) if before.get(p) != after.get(p)]
    if not changed: return print('notebooks, modules and README.md are in step')
    print('These files were not what nbdev_export, nbdev_clean and `make readme` make of the notebooks:', *changed, sep='\n  ', file=sys.stderr)
    print('They are now. Look at the change (git diff), keep it, and run again. An edit made in a module goes back '
          'to its notebook with nbdev_update, before exporting.', file=sys.stderr)
    sys.exit(1)


if __name__ == '__main__': main()
