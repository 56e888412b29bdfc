"The command line: what each command writes, and every bad input as one line, exit code 2 and nothing half-written."
import re, subprocess, sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from refinemotion import __version__
from refinemotion.cli import main
from refinemotion.core import InputError
from refinemotion.models import make_model, save_model
from refinemotion.video import read_flow, read_video, write_image, write_video

H, W = 64, 96
QUICK = dict(refine='--iters 1 --train-iters 1 --steps 1 --batch 1 --crop 64x64 --alpha 9 --beta 99 --device cpu'.split(),
             flow='--iters 1 --device cpu'.split(), track='--iters 1 --device cpu'.split())
COMMANDS = list(QUICK)


def picture(h=H, w=W, shift=0):
    "A smooth coloured pattern (3, h, w) uint8, moved to the right."
    y, x = torch.meshgrid(torch.arange(h).float(), torch.arange(w).float() - shift, indexing='ij')
    return torch.stack([(x/7).sin() + (y/5).cos(), (x/11 + y/6).sin(), (x/4).cos()*(y/9).sin()]).mul(60).add(128).clamp(0, 255).byte()


def moving(t=3, h=H, w=W): return torch.stack([picture(h, w, 2*i) for i in range(t)])


def images(folder, frames):
    "Frames as a folder of png files."
    for i, frame in enumerate(frames): write_image(folder/f'{i}.png', frame)
    return folder


@pytest.fixture(scope='session')
def weights(tmp_path_factory):
    "Random weights of the smallest network."
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights')/'random.safetensors'
    save_model(make_model('raft-mini'), path)
    return path


@pytest.fixture
def clip(tmp_path): return images(tmp_path/'clip', moving())


@pytest.fixture
def words(tmp_path, weights):
    "The words of a quick run of any command."
    (tmp_path/'q.csv').write_text('t,x,y\n0,10,20\n')
    def make(command, source, out=None, *more, model=weights):
        out = out or tmp_path/('result' if command == 'refine' else 'result.npz')
        queries = ['--queries', tmp_path/'q.csv'] if command == 'track' else []
        return [str(o) for o in (command, source, '--model', model, '--out', out, *queries, *QUICK[command], *more)]
    return make


@pytest.fixture
def works(capfd):
    "Run a command that must succeed; hands back what it said on stdout and stderr."
    def run(argv):
        code, said = main(argv), capfd.readouterr()
        assert code == 0, said.err
        return said.out, said.err
    return run


@pytest.fixture
def refused(capfd, tmp_path):
    "Run a command that must fail as the contract says: one line, code 2, no file made or changed."
    def look(): return {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*') if p.is_file()} | {p: 0 for p in tmp_path.rglob('*') if p.is_dir()}
    def run(argv, *contains):
        before, code, said = look(), main(argv), capfd.readouterr()
        assert (code, said.out) == (2, '')
        assert said.err.startswith('refinemotion: ') and said.err.count('\n') == 1, said.err
        assert look() == before
        for words in contains: assert words in said.err
    return run


# What the commands write

def test_flow_npz(words, works, clip, tmp_path):
    out, err = works(words('flow', clip))
    flow = np.load(tmp_path/'result.npz')['flow']
    assert flow.shape == (2, 2, H, W) and flow.dtype == np.float32 and np.isfinite(flow).all()
    assert read_video(tmp_path/'result_overlay.mp4').shape[0] == 2
    assert 'result_overlay.mp4' in out and err == ''


def test_flow_is_the_models_own(words, works, clip, weights, tmp_path):
    "The stream gives what the model gives."
    from refinemotion.models import load_model
    works(words('flow', clip))
    frames = read_video(clip)
    expected = load_model(weights, device='cpu').flow(frames[:1], frames[1:2], 1)[0]
    assert np.array_equal(np.load(tmp_path/'result.npz')['flow'][0], expected.numpy())


@pytest.mark.parametrize('name', ['flows', 'flows.flo', 'flows/*.flo'])
def test_flow_flo(name, words, works, clip, tmp_path):
    works(words('flow', clip, tmp_path/name))
    assert sorted(p.name for p in (tmp_path/'flows').iterdir()) == ['000000.flo', '000001.flo', 'overlay.mp4']
    assert read_flow(tmp_path/'flows'/'000001.flo')[0].shape == (2, H, W)


def test_flow_overwrite_leaves_no_older_pair(words, works, clip, tmp_path):
    works(words('flow', clip, tmp_path/'flows'))
    works(words('flow', clip, tmp_path/'flows', '--stop', '2', '--overwrite'))
    assert sorted(p.name for p in (tmp_path/'flows').iterdir()) == ['000000.flo', 'overlay.mp4']


def test_range_and_size(words, works, clip, tmp_path):
    works(words('flow', clip, None, '--stride', '2', '--size', '32x48'))
    assert np.load(tmp_path/'result.npz')['flow'].shape == (1, 2, 32, 48)


def test_track(words, works, clip, tmp_path):
    works(words('track', clip))
    found = np.load(tmp_path/'result.npz')
    assert set(found) == {'xy', 'visible'}
    assert found['xy'].shape == (1, 3, 2) and found['xy'].dtype == np.float32 and found['visible'].dtype == bool
    assert found['xy'][0, 0].tolist() == [10, 20]
    assert len(read_video(tmp_path/'result_overlay.mp4')) == 3


def test_track_answers_in_pixels_of_the_input(words, works, clip, tmp_path):
    works(words('track', clip, None, '--size', '128x192'))
    assert np.allclose(np.load(tmp_path/'result.npz')['xy'][0, 0], [10, 20], atol=1e-4)


def test_refine_then_use(words, works, clip, tmp_path):
    "What refine wrote is a model like any other."
    out, _ = works(words('refine', clip))
    assert {p.name for p in (tmp_path/'result').iterdir()} >= {'model.safetensors', 'labels', 'config.json', 'metrics.csv', 'report.html'}
    assert str(tmp_path/'result'/'report.html') in out
    works(words('flow', clip, tmp_path/'after.npz', model=tmp_path/'result'/'model.safetensors'))


def test_alike_is_handed_on(words, refused, clip, monkeypatch):
    def hear(*given, balance, **how): raise InputError(f'balance is {balance}')
    monkeypatch.setattr('refinemotion.refine.refine', hear)
    refused(words('refine', clip), 'balance is None')
    refused(words('refine', clip, None, '--alike'), 'balance is False')


def test_a_tracker_takes_the_same_road(works, tmp_path):
    "Refined round a point that matters, it follows that point, and is scored on a set."
    import pandas as pd
    from refinemotion.datasets import PointVideo, write_tapvid_davis
    from refinemotion.video import Video
    frames, queries, refined = moving(9), tmp_path/'q.csv', tmp_path/'out'/'model.safetensors'
    queries.write_text('t,x,y\n0,30,20\n')
    run = lambda command, source, *words: works([str(o) for o in (command, source, *words, '--device', 'cpu')])
    run('refine', images(tmp_path/'clip', frames), '--model', 'pips-mini', '--out', tmp_path/'out', '--queries', queries, '--points', 12, '--denser', 8,
        '--within', 99, '--steps', 1, '--crop', '48x64', '--no-gate')
    run('track', tmp_path/'clip', '--model', refined, '--queries', queries, '--out', tmp_path/'tracks.npz')
    assert np.load(tmp_path/'tracks.npz')['xy'].shape == (1, 9, 2)
    write_tapvid_davis(tmp_path/'set', PointVideo('one', Video(frames), torch.tensor([[[30. + 2*t, 20] for t in range(9)]]), torch.ones(1, 9, dtype=torch.bool)))
    run('evaluate', 'tapvid-davis', '--root', tmp_path/'set', '--model', refined, '--settings', 'native-own', '--out', tmp_path/'table.csv')
    table = pd.read_csv(tmp_path/'table.csv', index_col='video')
    assert table.delta_first['one'] > 50 and table.model['one'] == 'pips-mini'


def test_refine_pips_with_weights_of_the_public_kind(works, tmp_path):
    "The public checkpoint keeps its parameters beside an optimiser's state."
    torch.save(dict(model_state_dict=make_model('pips').state_dict(), optimizer_state_dict={}), tmp_path/'public.pth')
    works([str(o) for o in ('refine', images(tmp_path/'clip', moving(8)), '--model', 'pips', '--weights', tmp_path/'public.pth', '--out', tmp_path/'out', '--look', 'plain',
        '--points', 9, '--within', 999, '--steps', 1, '--train-iters', 1, '--iters', 1, '--crop', '48x64', '--no-gate', '--device', 'cpu')])
    assert (tmp_path/'out'/'report.html').exists()


def test_models(works):
    out, _ = works(['models'])
    table, about = out.split('\n\n', 1)
    header, *rows = table.splitlines()
    assert header.split() == 'model weights licence trained on from'.split()
    assert {row.split()[0] for row in rows} == {'raft-mini', 'raft-small', 'raft-large', 'pips', 'pips-mini'} and 'BSD-3-Clause' in table
    assert about.startswith('raft-mini, mini: ') and 'Middlebury' in about
    assert all(row.startswith('raft-small') for row in works(['models', '*small'])[0].splitlines()[1:])


def test_version_and_help(works):
    assert works(['--version'])[0].strip() == f'refinemotion {__version__}'
    assert 'refine' in works([])[0]
    assert '--steps N' in works(['refine', '--help'])[0]


# Mistakes in the words

@pytest.mark.parametrize('argv, says', [
    (['refine', 'film.mp4'], '--out'), (['polish'], 'polish'), (['flow', 'a.mp4', '--out', 'b.npz', '--iters', '0'], 'above 0'),
    (['refine', 'a.mp4', '--out', 'b', '--crop', '12'], 'HEIGHTxWIDTH'), (['refine', 'a.mp4', '--out', 'b', '--lr', 'fast'], 'above 0'),
    (['models', 'rift*'], 'no model fits'), (['flow', 'a.mp4', '--out', 'b.gif'], 'NAME.npz')])
def test_wrong_words(argv, says, refused): refused(argv, says)


# Videos that cannot be used

def one_frame(folder): return images(folder, moving(1))
def two_sizes(folder): return images(folder, [picture(), picture(H, W+8)])
def empty(folder): folder.mkdir(); return folder
def missing(folder): return folder
def no_film(folder): folder.mkdir(); (folder/'notes.mp4').write_text('not a film'); return folder/'notes.mp4'
def no_match(folder): return folder/'*.png'


def one_frame_film(folder):
    write_video(folder/'one.mp4', moving(1))
    return folder/'one.mp4'


@pytest.mark.parametrize('command', COMMANDS)
@pytest.mark.parametrize('make, says', [(missing, 'no such file'), (empty, 'is empty'), (one_frame, 'at least 2'), (two_sizes, 'one size'),
    (no_film, 'notes.mp4'), (no_match, 'matches no file'), (one_frame_film, 'at least 2')], ids=lambda o: getattr(o, '__name__', None))
def test_unusable_video(command, make, says, words, refused, tmp_path): refused(words(command, make(tmp_path/'in')), says)


def web_film(path, t):
    "A film with its index at the front, so that it can be read when it is cut short."
    with av.open(str(path), 'w', options={'movflags': 'faststart'}) as container:
        stream = container.add_stream('libx264', rate=24, options={'x264-params': 'bframes=0:keyint=1'})
        stream.width, stream.height, stream.pix_fmt = W, H, 'yuv420p'
        for frame in moving(t): container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).numpy(), format='rgb24')))
        container.mux(stream.encode(None))
    return path


def cut(path, share):
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size*share)])
    return path


@pytest.mark.parametrize('command', COMMANDS)
def test_truncated_film_is_used_and_said(command, words, works, tmp_path):
    _, err = works(words(command, cut(web_film(tmp_path/'film.mp4', 8), .75)))
    lost = int(re.search(r'(\d+) of 8 frames could not be decoded', err)[1])
    assert 0 < lost < 7 and err.startswith('refinemotion: note: ')
    if command == 'flow': assert len(np.load(tmp_path/'result.npz')['flow']) == 7-lost


@pytest.mark.parametrize('command', COMMANDS)
def test_film_with_nothing_left_is_refused(command, words, refused, tmp_path):
    refused(words(command, cut(web_film(tmp_path/'film.mp4', 8), .3)), 'film.mp4')


# Videos that are odd, and work

def grey(folder, i): Image.fromarray(picture(shift=2*i)[0].numpy()).save(folder/f'{i}.png')
def rgba(folder, i): Image.fromarray(picture(shift=2*i).permute(1, 2, 0).numpy()).convert('RGBA').save(folder/f'{i}.png')
def deep(folder, i): Image.fromarray(picture(shift=2*i)[0].numpy().astype(np.uint16)*257).save(folder/f'{i}.png')


@pytest.mark.parametrize('command', COMMANDS)
@pytest.mark.parametrize('write, says', [(grey, 'grey'), (rgba, 'transparency'), (deep, '16 bits')], ids=lambda o: getattr(o, '__name__', None))
def test_other_pixels_are_converted_and_said(command, write, says, words, works, tmp_path):
    (tmp_path/'in').mkdir()
    for i in range(2): write(tmp_path/'in', i)
    assert says in works(words(command, tmp_path/'in'))[1]


@pytest.mark.parametrize('command', COMMANDS)
@pytest.mark.parametrize('size', [(67, 97), (40, 30)], ids=['odd', 'small'])
def test_odd_and_small_sizes(command, size, words, works, tmp_path):
    "No NaN, whatever the size."
    works(words(command, images(tmp_path/'in', moving(2, *size))))
    if command == 'refine':
        from safetensors.torch import load_file
        assert all(torch.isfinite(o).all() for o in load_file(tmp_path/'result'/'model.safetensors').values())
        assert 'nan' not in (tmp_path/'result'/'metrics.csv').read_text().lower()
    else: assert all(np.isfinite(o).all() for o in np.load(tmp_path/'result.npz').values())


# Weights that cannot be used

class Innocent:
    def __reduce__(self): return print, ('the checkpoint ran code',)


def other_network(path): save_model(make_model('raft-large'), path); return 'does not fit'
def holds_nan(path):
    model = make_model('raft-mini')
    next(model.parameters()).data[0] = float('nan')
    save_model(model, path)
    return 'NaN'
def holds_code(path): torch.save(dict(weight=torch.zeros(1), extra=Innocent()), path); return 'holds code'
def not_weights(path): path.write_text('hello'); return 'not a checkpoint'
def not_there(path): return 'no such weights'


@pytest.mark.parametrize('command', COMMANDS)
@pytest.mark.parametrize('make, name', [(other_network, 'w.safetensors'), (holds_nan, 'w.safetensors'), (holds_code, 'w.pth'),
    (not_weights, 'w.pth'), (not_weights, 'w.safetensors'), (not_there, 'w.pth')], ids=lambda o: getattr(o, '__name__', o))
def test_unusable_weights(command, make, name, words, refused, clip, tmp_path):
    says = make(tmp_path/name)
    refused(words(command, clip, None, '--weights', tmp_path/name, model='raft-mini'), name, says)


@pytest.mark.parametrize('command', COMMANDS)
def test_unknown_model(command, words, refused, clip): refused(words(command, clip, model='raft-smal'), "did you mean 'raft-small'")


@pytest.mark.parametrize('command', COMMANDS)
def test_absent_device(command, words, refused, clip): refused(words(command, clip, None, '--device', 'cuda:7'), 'cuda:7', 'this machine has cpu')


# Results that cannot be written

def test_refine_refuses_a_full_folder(words, refused, works, clip, tmp_path):
    (tmp_path/'result').mkdir()
    (tmp_path/'result'/'diary.txt').write_text('mine')
    refused(words('refine', clip), 'is not empty')
    refused(words('refine', clip, None, '--resume', '--overwrite'), 'choose one')


def test_refine_refuses_the_folder_it_stands_in(words, refused, clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(words('refine', clip, '.'), 'is not empty')


def test_refine_overwrite(words, works, refused, clip, tmp_path):
    works(words('refine', clip))
    refused(words('refine', clip), 'is not empty')
    refused(words('refine', clip, None, '--resume'), 'finished')
    works(words('refine', clip, None, '--overwrite'))


@pytest.mark.parametrize('command', ['flow', 'track'])
@pytest.mark.parametrize('name', ['result.npz', 'result_overlay.mp4'])
def test_existing_file_is_refused(command, name, words, refused, works, clip, tmp_path):
    (tmp_path/name).write_text('mine')
    refused(words(command, clip), 'is there already', '--overwrite')
    works(words(command, clip, None, '--overwrite'))


def test_flow_refuses_a_full_folder(words, refused, clip): refused(words('flow', clip, clip), 'is not empty')


@pytest.mark.parametrize('command', COMMANDS)
def test_file_in_place_of_a_folder(command, words, refused, clip, tmp_path):
    (tmp_path/'file').write_text('mine')
    refused(words(command, clip, tmp_path/'file'/'result.npz'), 'file')


# Labels and queries

def test_no_label_survives(words, works, clip, tmp_path, capfd):
    "Says which check removed them and what to loosen; no result is there, and the labels wait for the next try."
    assert main(words('refine', clip, None, '--alpha', '0', '--beta', '0')) == 2
    said = capfd.readouterr()
    assert said.out == '' and said.err.startswith('refinemotion: ') and said.err.count('\n') == 1
    assert 'do not come back' in said.err and 'raise alpha and beta' in said.err
    assert not (tmp_path/'result').exists()
    flow = tmp_path/'result.partial'/'labels'/'flow'/'000000.npz'
    made = flow.read_bytes()
    works(words('refine', clip, None, '--resume'))
    assert (tmp_path/'result'/'labels'/'flow'/'000000.npz').read_bytes() == made


@pytest.mark.parametrize('text, says', [('frame,row,column\n0,1,2\n', 'frame,row,column'), ('t,x,y\n', 'no points'), ('t,x,y\n0,1\n', 'three numbers'),
    ('t,x,y\n0,one,2\n', 'three numbers'), ('t,x,y\n0,96,2\n', 'outside the clip'), ('t,x,y\n3,1,2\n', 'outside the clip'), ('t,x,y\n.5,1,2\n', 'whole number'),
    ('t,x,y\n0,nan,2\n', 'outside'), ('\0\xff', 't,x,y')])
def test_wrong_queries(text, says, words, refused, clip, tmp_path):
    argv = words('track', clip)
    (tmp_path/'q.csv').write_bytes(text.encode('latin-1'))
    refused(argv, says)


def test_missing_queries(words, refused, clip, tmp_path):
    argv = words('track', clip)
    (tmp_path/'q.csv').unlink()
    refused(argv, 'q.csv', 'No such file')


# As a process of its own

def process(argv, **how):
    return subprocess.run([sys.executable, '-c', 'import sys; from refinemotion.cli import main; sys.exit(main())', *argv], capture_output=True, text=True, **how)


def test_process_that_works(words, clip, tmp_path):
    "Not a word on stderr, warnings included."
    done = process(words('refine', clip))
    assert (done.returncode, done.stderr) == (0, '') and (tmp_path/'result'/'model.safetensors').exists()


def test_process_that_is_refused(words, tmp_path):
    done = process(words('refine', tmp_path/'nowhere'))
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith('refinemotion: ') and done.stderr.count('\n') == 1


def test_help_does_not_wait_for_torch():
    done = subprocess.run([sys.executable, '-c', 'import sys; from refinemotion.cli import main; main(["--help"]); sys.exit("torch" in sys.modules)'], capture_output=True)
    assert done.returncode == 0


def test_ctrl_c(words, clip, capfd, monkeypatch):
    "Says how to go on."
    def press(*args, **kwargs): raise KeyboardInterrupt
    monkeypatch.setattr('refinemotion.refine.refine', press)
    assert main(words('refine', clip)) == 130
    assert '--resume' in capfd.readouterr().err
