"A run that is killed and resumed ends in the same weights as one that was not."
import signal, subprocess, sys, time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from refinemotion.cli import main
from refinemotion.datasets import write_sintel
from refinemotion.models import make_model, save_model
from refinemotion.scenes import make_scene
from refinemotion.video import write_image

STEPS, PAIRS = 80, 15 # a student that only gets worse is stopped after three quarters


@pytest.fixture(scope='module')
def desk(tmp_path_factory):
    "A folder with frames and random weights."
    folder = tmp_path_factory.mktemp('desk')
    for i, frame in enumerate(make_scene(64, 64, PAIRS+1, seed=5).frames): write_image(folder/'frames'/f'{i}.png', frame)
    torch.manual_seed(0)
    save_model(make_model('raft-mini'), folder/'random.safetensors')
    return folder


def words(desk, out, *more):
    return [*f'refine {desk/"frames"} --model {desk/"random.safetensors"} --out {out} --iters 1 --train-iters 1 --batch 1'.split(),
            *f'--steps {STEPS} --crop 64x64 --alpha 9 --beta 99 --device cpu --seed 3'.split(), *more]


def run(words):
    "The command as a process of its own."
    code = 'import sys, torch; torch.set_num_threads(1); from refinemotion.cli import main; sys.exit(main())'
    return subprocess.Popen([sys.executable, '-c', code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def start(desk, out, *more): return run(words(desk, out, *more))


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def kill_when(process, ready):
    "SIGKILL, as soon as the run has come far enough."
    while not ready():
        assert process.poll() is None, f'ended too early: {process.communicate()}'
        time.sleep(.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def weights(out): # of the student, whatever the gate made of it
    return load_file(max(Path(out).glob('*.safetensors'), key=lambda path: path.name))


@pytest.fixture(scope='module')
def unbroken(desk):
    finish(start(desk, desk/'unbroken'))
    return weights(desk/'unbroken')


def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_training_changed_the_weights(desk, unbroken): assert not same(unbroken, load_file(desk/'random.safetensors'))


def test_killed_while_labelling(desk, unbroken, capfd):
    "What is there is refused without --resume, or with other settings; then the run goes on at the next pair."
    out, flows = desk/'labelling', desk/'labelling.partial'/'labels'/'flow'
    kill_when(start(desk, out), (flows/f'{PAIRS//2:06d}.npz').exists)
    assert not out.exists() and not (flows/f'{PAIRS-1:06d}.npz').exists()
    first = (flows/'000000.npz').stat().st_mtime_ns
    for more, says in ([], 'unfinished run'), (['--resume', '--lr', '1'], 'other settings'):
        assert main(words(desk, out, *more)) == 2
        assert says in capfd.readouterr().err
    finish(start(desk, out, '--resume'))
    assert (out/'labels'/'flow'/'000000.npz').stat().st_mtime_ns == first
    assert same(weights(out), unbroken) and not flows.exists()


def test_killed_while_training(desk, unbroken):
    "The run goes on at its checkpoint."
    out, checkpoint = desk/'training', desk/'training.partial'/'training.pt'
    kill_when(start(desk, out), checkpoint.exists)
    assert not out.exists() and 0 < len(torch.load(checkpoint, weights_only=True)['losses']) < STEPS
    finish(start(desk, out, '--resume'))
    assert same(weights(out), unbroken) and not checkpoint.exists()


def test_killed_trial_goes_on_at_the_video_where_it_stopped(tmp_path):
    "The video that was done is not done again, and the tables are those of a trial that was not killed."
    for seed, name in enumerate(('first', 'second')):
        scene = make_scene(64, 96, 4, seed=seed)
        write_sintel(tmp_path/'sintel', name, scene.frames, scene.fwd)
    trial = lambda out: run(f'evaluate sintel --root {tmp_path} --settings native-2 --refine --steps 1 --device cpu --out {tmp_path/out}.csv'.split())
    whole = trial('whole')
    kill_when(trial('killed'), (tmp_path/'killed/second.partial/labels').is_dir)
    model = tmp_path/'killed/first/model.safetensors'
    made = model.stat().st_mtime_ns
    finish(trial('killed'))
    finish(whole)
    assert model.stat().st_mtime_ns == made
    for table in ('', '/before', '/after'): assert (tmp_path/f'killed{table}.csv').read_text() == (tmp_path/f'whole{table}.csv').read_text()
