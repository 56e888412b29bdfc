"Reads settings.ini, so that nbdev and pip agree on name, version and requirements."
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
config = ConfigParser(delimiters=['='])
config.read(here/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
pythons = [f'Programming Language :: Python :: 3.{minor}' for minor in range(int(cfg['min_python'].split('.')[1]), 14)]
readme = here/'README.md'

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else cfg['description'],
    long_description_content_type='text/markdown',
    author=cfg['author'],
    url=cfg['git_url'],
    keywords=cfg['keywords'].split(),
    license='Apache-2.0',
    classifiers=['Development Status :: 3 - Alpha', f"Intended Audience :: {cfg['audience']}", *pythons],
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg['requirements'].split(),
    extras_require={'dev': cfg['dev_requirements'].split()},
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"]},
    # The demo clip lives in data/ at the top of the checkout and is installed as refinemotion/data.
    packages=['refinemotion', 'refinemotion.data'],
    package_dir={'refinemotion': 'refinemotion', 'refinemotion.data': 'data'},
    package_data={'refinemotion': ['weights/*.safetensors', 'weights/*.csv', 'weights/*.json', '*.csv'],
                  'refinemotion.data': ['*']},
    include_package_data=False,
    zip_safe=False,
)
