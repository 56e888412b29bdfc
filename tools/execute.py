"""Execute notebooks in place, so that the committed ones carry their figures, tables and sliders.

    python tools/execute.py                      every notebook
    python tools/execute.py nbs/02_scenes.ipynb  only this one
    python tools/execute.py --slow               slow cells too
    python tools/execute.py --only step nbs/32_speed.ipynb   of the slow cells those in sections whose title holds the word

Cells marked `#| eval: false` or with a flag of `tst_flags` (`#| slow`) keep the outputs they have.
What differs from run to run for no reason (widget ids, timings, addresses) is made the same, so a second run gives no diff.
"""
import argparse, json, os, re, sys, time
from hashlib import md5
from pathlib import Path
from typing import Iterator

import nbformat
from execnb.nbio import read_nb
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbdev.clean import nbdev_clean
from nbdev.config import get_config
from nbdev.frontmatter import FrontmatterProc
from nbdev.process import NBProcessor, extract_directives

ROOT = Path(__file__).resolve().parent.parent
WIDGET_STATE = 'application/vnd.jupyter.widget-state+json'
WIDGET_VIEW = 'application/vnd.jupyter.widget-view+json'
MODEL_ID = re.compile(r'(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])')
STYLER_ID = re.compile(r'\bT_([0-9a-f]{5})(?=_|\b)')
PROGRESS = re.compile(r'\d+%\||\d+(it|s)/(s|it)\b|\?it/s')


def all_notebooks() -> list[Path]:
    "Every notebook of the project, in reading order."
    nbs = ROOT/get_config().nbs_path
    return sorted(p for p in nbs.rglob('*.ipynb') if not any(part[0] in '._' for part in p.relative_to(nbs).parts))


def titled(nb) -> Iterator:
    "Each code cell with its number and the section it stands in."
    title = ''
    for index, cell in enumerate(nb.cells):
        if cell.cell_type == 'markdown': title = next((line.lstrip('# ') for line in reversed(cell.source.splitlines()) if line.startswith('#')), title)
        if cell.cell_type == 'code': yield index, title, cell


def is_skipped(cell, flags: set[str]) -> bool:
    "The rule of `nbdev_test`: what it does not run, this does not run either."
    directives = extract_directives(cell, remove=False)
    return ('nbdev_export(' in cell.source or bool(flags & directives.keys())
            or directives.get('eval:', [''])[0].lower() == 'false')


def skips_all(path: Path) -> bool:
    "Whether the front matter says `skip_exec: true`."
    nb = NBProcessor(path, procs=FrontmatterProc, process=True).nb
    return str(nb.frontmatter_.get('skip_exec', False)).lower() in ('true', '1', 'yes')


def widget_models(nb) -> dict:
    return nb.metadata.get('widgets', {}).get(WIDGET_STATE, {}).get('state', {})


def references(value) -> list[str]:
    "Widget ids in `value`, in the order in which they appear."
    return list(dict.fromkeys(MODEL_ID.findall(json.dumps(value, sort_keys=True))))


def reachable(models: dict, start: list[str]) -> list[str]:
    "Ids of the models that the widgets in `start` need, in a stable order."
    found, queue = [], [o for o in start if o in models]
    while queue:
        model_id = queue.pop(0)
        if model_id in found: continue
        found.append(model_id)
        queue += [o for o in references(models[model_id]) if o in models]
    return found


def used_models(nb, models: dict) -> list[str]:
    "Ids of the models that the page shows, then of the links that join two of them."
    shown = [o['data'][WIDGET_VIEW]['model_id'] for cell in nb.cells for o in cell.get('outputs', [])
             if WIDGET_VIEW in o.get('data', {})]
    found = reachable(models, shown)
    place = {o: i for i, o in enumerate(found)}
    links = [([place.get(o) for o in references(model)], model_id) for model_id, model in models.items()
             if model['model_name'].endswith('LinkModel')]
    return found + [model_id for ends, model_id in sorted(o for o in links if None not in o[0])]


def settle_widgets(nb, old_models: dict, name: str):
    "Keep the state that is shown, and number its random ids."
    models = {**old_models, **widget_models(nb)}
    used = used_models(nb, models)
    nb.metadata.pop('widgets', None)
    if not used: return nb
    state = {model_id: models[model_id] for model_id in used}
    nb.metadata['widgets'] = {WIDGET_STATE: dict(state=state, version_major=2, version_minor=0)}
    new_id = {o: md5(f'{name} {i}'.encode()).hexdigest() for i, o in enumerate(used)}
    text = MODEL_ID.sub(lambda m: new_id.get(m[0], m[0]), nbformat.writes(nb))
    return nbformat.reads(text, as_version=4)


def drop_progress(nb):
    "Remove progress bars: they show how long a run took, which no two runs share."
    for cell in nb.cells:
        if cell.cell_type != 'code': continue
        for output in cell.outputs:
            if output.output_type == 'stream':
                output.text = ''.join(o for o in output.text.splitlines(True) if not PROGRESS.search(o) and o != '\r')
        cell.outputs = [o for o in cell.outputs if o.get('text') != '' and not is_progress(o)]


def is_progress(output) -> bool:
    data = output.get('data', {})
    return WIDGET_VIEW in data and bool(PROGRESS.search(data.get('text/plain', '')))


def settle_html(nb):
    "Number the random ids of styled pandas tables."
    seen = {}
    number = lambda m: f'T_{seen.setdefault(m[1], len(seen)):05x}'
    for cell in nb.cells:
        for output in cell.get('outputs', []):
            if 'text/html' in (data := output.get('data', {})): data['text/html'] = STYLER_ID.sub(number, data['text/html'])


def run_cells(nb, folder: Path, flags: set[str], only: str | None = None, skip_all: bool = False):
    "Run the cells in a fresh kernel, flagged ones in sections titled with `only`; raises `CellExecutionError` at the first that fails."
    wanted = lambda title: only is not None and only.lower() in title.lower()
    skipped = [cell for _, title, cell in titled(nb) if skip_all or is_skipped(cell, set() if wanted(title) else flags)]
    for cell in skipped: cell.metadata['tags'] = ['skip-execution']
    NotebookClient(nb, timeout=None, kernel_name='python3', record_timing=False, coalesce_streams=True,
                   extra_arguments=['--log-level=ERROR'], resources={'metadata': {'path': str(folder)}}).execute()


def execute(path: Path, flags: set[str], only: str | None = None):
    "Execute one notebook and write it back cleaned; a notebook that fails is left as it was."
    nb = nbformat.read(path, as_version=4)
    old_models = dict(widget_models(nb))
    run_cells(nb, path.parent, flags, only, skips_all(path))
    drop_progress(nb)
    nb = settle_widgets(nb, old_models, path.stem)
    settle_html(nb)
    nb.metadata['kernelspec'] = dict(display_name='python3', language='python', name='python3')
    nb.metadata.pop('jupytext', None)
    nbformat.write(nb, path)
    nbdev_clean.__wrapped__(str(path))


def report(path: Path, flags: set[str], only: str | None) -> bool:
    "Execute one notebook, print a line, tell whether it worked."
    start = time.time()
    try: execute(path, flags, only)
    except CellExecutionError as e:
        print(f'{path.name}: FAILED\n{e}', file=sys.stderr)
        return False
    print(f'{path.name}: {time.time()-start:.1f} s, {path.stat().st_size//1024} KB', flush=True)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('notebooks', nargs='*', type=Path, help='default: all')
    parser.add_argument('--slow', action='store_true', help='run the cells with a flag of tst_flags too')
    parser.add_argument('--only', metavar='WORD', help='run those of them that stand in a section with this word in its title')
    args = parser.parse_args()
    paths = [p.resolve() for p in args.notebooks]
    if args.only and args.slow: parser.error('--slow runs all slow cells; leave out --only, or leave out --slow')
    os.chdir(ROOT)
    os.environ.setdefault('PYTHONHASHSEED', '0')
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    flags, only = set(get_config().tst_flags.split()), '' if args.slow else args.only
    missing = [p.name for p in paths if only and not any(only.lower() in title.lower() for _, title, _ in titled(nbformat.read(p, as_version=4)))]
    if missing: parser.error(f'no section of {missing[0]} has {only!r} in its title')
    results = [report(p, flags, only) for p in paths or all_notebooks()]
    if not all(results): sys.exit(1)


if __name__ == '__main__': main()
