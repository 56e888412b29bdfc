"""Build the site into `_docs/`: nbdev stages the notebooks, quarto renders them, or smalldocs where there is no quarto.

smalldocs is pure Python and needs nothing from outside. Maths and sliders need two JavaScript libraries, taken from npm
and laid beside the site so that it works offline. Without npm the site is built all the same, and says what it lacks.
"""
import json, os, re, shutil, subprocess, sys, tarfile
from pathlib import Path

import execnb.nbio, smalldocs.layout, smalldocs.notebook, smalldocs.site
from nbdev.config import get_config
from nbdev.serve import proc_nbs
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT/'build'/'docs_assets'
WIDGET_STATE = 'application/vnd.jupyter.widget-state+json'
WIDGET_VIEW = 'application/vnd.jupyter.widget-view+json'
LIBRARIES = {'katex': ('katex@0.16.11', ('katex.min.css', 'katex.min.js', 'contrib/auto-render.min.js', 'fonts/')),
             'widgets': ('@jupyter-widgets/html-manager@1.0.15', ('embed.js',))}


def keep_widget_links():
    "execnb takes any key named `source` for a cell's text; two sliders joined by `jslink` have one that is a list."
    nb2dict = execnb.nbio.nb2dict
    execnb.nbio.nb2dict = lambda d, k=None: d if k == 'source' and not isinstance(d, str) else nb2dict(d, k)


def stage() -> Path:
    "Notebooks without what readers need not see, with signatures and links, in `_proc/`."
    keep_widget_links()
    return proc_nbs(force=True, n_workers=0)


def fetch_library(name: str) -> bool:
    "Unpack one library's built files into the cache; False where npm is missing or fails."
    package, wanted = LIBRARIES[name]
    folder = ASSETS/name
    if folder.exists(): return True
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not shutil.which('npm'): return False
    done = subprocess.run(['npm', 'pack', '--silent', package], cwd=ASSETS, capture_output=True, text=True)
    if done.returncode: return False
    archive = ASSETS/done.stdout.split()[-1]
    unpack(archive, folder, wanted)
    archive.unlink()
    return True


def unpack(archive: Path, folder: Path, wanted: tuple):
    "Lay out the files of `package/dist/` that are in `wanted`: names, or folders ending in a slash."
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            name = member.name.removeprefix('package/dist/')
            if not member.isfile() or not any(name == o or o.endswith('/') and name.startswith(o) for o in wanted): continue
            (folder/name).parent.mkdir(parents=True, exist_ok=True)
            (folder/name).write_bytes(tar.extractfile(member).read())


def name_pages_as_nbdev():
    "smalldocs would call the page of 00_core.ipynb `00_core.html`; nbdev and its links call it `core.html`."
    site = smalldocs.site.Site
    read, find_page = site.read, site.find_page

    def read_named(self, src):
        page = read(self, src)
        if 'output-file' in page.front: page.out = page.src.with_name(page.front['output-file'])
        return page

    def find_named(self, target):
        return find_page(self, target) or next((p for p in self.pages.values() if p.out == target), None)

    site.read, site.find_page = read_named, find_named


def drop_web_fonts(folder: Path):
    "The theme asks a server for its font; the reader's own sans-serif does as well."
    for css in (folder/'site_libs'/'themes').rglob('*.css'):
        css.write_text(re.sub(r'@import url\([^)]*\);', '', css.read_text(encoding='utf-8')), encoding='utf-8')


def inline_json(value) -> str:
    return json.dumps(value).replace('</', r'<\/')


def show_widgets():
    "smalldocs would show a slider as text; the page gets the view, the state and the script that joins them."
    output_html, to_markdown = smalldocs.notebook.output_html, smalldocs.notebook.to_markdown
    raw = smalldocs.notebook.raw_html

    def output_or_view(out, *args, **kwargs):
        view = (out.get('data') or {}).get(WIDGET_VIEW)
        if view is None: return output_html(out, *args, **kwargs)
        return raw(f'<div class="cell-output cell-output-display">\n<script type="{WIDGET_VIEW}">{inline_json(view)}</script>\n</div>')

    def with_state(text, *args, **kwargs):
        front, body = to_markdown(text, *args, **kwargs)
        state = json.loads(text).get('metadata', {}).get('widgets', {}).get(WIDGET_STATE)
        if state is None: return front, body
        scripts = f'<script type="{WIDGET_STATE}">{inline_json(state)}</script>\n<script src="site_libs/widgets/embed.js"></script>'
        return front, body + '\n' + raw(scripts)

    smalldocs.notebook.output_html = output_or_view
    smalldocs.site.to_markdown = with_state


def render_smalldocs(staged: Path):
    "Render with smalldocs and lay the JavaScript libraries beside the pages."
    have = {name for name in LIBRARIES if fetch_library(name)}
    name_pages_as_nbdev()
    if 'widgets' in have: show_widgets()
    if 'katex' in have: smalldocs.layout.KATEX = 'site_libs/katex'
    site = smalldocs.site.build(staged, quiet=True)
    for name in have: shutil.copytree(ASSETS/name, site.out/'site_libs'/name)
    drop_web_fonts(site.out)
    for warning in site.warnings:
        if 'output-file' not in warning: print(f'note: {warning}', file=sys.stderr)
    if 'katex' not in have: print('note: KaTeX could not be had from npm: formulas need a network to show', file=sys.stderr)
    if 'widgets' not in have: print('note: html-manager could not be had from npm: sliders show as text', file=sys.stderr)


def write_sources(folder: Path):
    "Each module as a page with numbered lines, for the `source` links to land on."
    style = HtmlFormatter(full=True, linenos='inline', lineanchors='L')
    for module in get_config().lib_path.glob('*.py'):
        page = folder/'source'/f'{module.stem}.html'
        page.parent.mkdir(exist_ok=True)
        page.write_text(highlight(module.read_text(encoding='utf-8'), PythonLexer(), style), encoding='utf-8')


def local_links(folder: Path):
    "Make links to this project's own pages and modules relative, so that the site works wherever it lies."
    cfg = get_config()
    home = f'{cfg.doc_host}{cfg.doc_baseurl}/'
    source = re.compile(rf'{re.escape(cfg.git_url)}/blob/{cfg.branch}/{cfg.lib_path.name}/(\w+)\.py#L(\d+)')
    for page in folder.glob('*.html'):
        text = page.read_text(encoding='utf-8').replace(f'href="{home}', 'href="')
        page.write_text(source.sub(r'source/\1.html#L-\2', text), encoding='utf-8')


def main():
    os.chdir(ROOT)
    staged, built, final = stage(), ROOT/'_proc'/'_docs', get_config().doc_path
    shutil.rmtree(built, ignore_errors=True)
    quarto = shutil.which('quarto')
    if quarto: subprocess.run([quarto, 'render', '--no-execute'], cwd=staged, check=True)
    else: render_smalldocs(staged)
    write_sources(built)
    local_links(built)
    shutil.rmtree(final, ignore_errors=True)
    shutil.move(built, final)
    pages = len(list(final.glob('*.html')))
    print(f"{pages} pages in {final.relative_to(ROOT)}/, rendered with {'quarto' if quarto else 'smalldocs'}")


if __name__ == '__main__': main()
