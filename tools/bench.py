"""Run the speed page, slow cells included, and print what its cells show; the committed page stays as it is.

    python tools/bench.py              all of it: about an hour on two cores, and the first time an hour more for the paper's budget
    python tools/bench.py --only step  the cells whose section title holds the word, and those they need
"""
import argparse, os, sys, time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbdev.process import extract_directives

from execute import titled

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT/'nbs/32_speed.ipynb'


def is_slow(cell) -> bool: return 'slow' in extract_directives(cell, remove=False)


def text_of(output) -> str:
    "What a terminal can show of an output."
    if output.output_type == 'stream': return '' if output.name == 'stderr' else output.text
    return output.get('data', {}).get('text/plain', '') if output.output_type != 'error' else '\n'.join(output.traceback)


def plain_tables(cell):
    "A terminal has no styles: show the table behind the styled one."
    *lines, last = cell.source.splitlines()
    if '.style' in last: cell.source = '\n'.join([*lines, f'print(({last}).data.to_string(float_format="{{:.4g}}".format))'])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', metavar='WORD', default='', help='sections with this word in their title')
    args = parser.parse_args()
    nb = nbformat.read(PAGE, as_version=4)
    if not any(is_slow(cell) and args.only.lower() in title.lower() for _, title, cell in titled(nb)):
        parser.error(f'no section has {args.only!r} in its title; there are: ' + ', '.join(dict.fromkeys(title for _, title, cell in titled(nb) if is_slow(cell))))
    os.chdir(ROOT)
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    shown = None
    client = NotebookClient(nb, timeout=None, kernel_name='python3', extra_arguments=['--log-level=ERROR'], resources={'metadata': {'path': str(PAGE.parent)}})
    with client.setup_kernel():
        for index, title, cell in titled(nb):
            if is_slow(cell) and args.only.lower() not in title.lower(): continue
            plain_tables(cell)
            begun = time.time()
            client.execute_cell(cell, index)
            text = '\n'.join(filter(None, map(text_of, cell.outputs))).strip()
            if not is_slow(cell) or not text: continue
            if title != shown: print(f'\n{title}\n{"-"*len(title)}')
            shown = title
            print(f'{text}\n({time.time()-begun:.0f} s)\n', flush=True)


if __name__ == '__main__': main()
