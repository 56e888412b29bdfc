"What must not teach does not: rejected labels, held-out pairs and ground truth."
from copy import deepcopy

import numpy as np
import pytest
import torch

import refinemotion.refine
from refinemotion import datasets, evaluate, scenes, trials
from refinemotion.filter import filter_labels
from refinemotion.finetune import Recipe, finetune
from refinemotion.gate import split_pairs
from refinemotion.label import label_video
from refinemotion.models import make_model, weights_hash
from refinemotion.refine import refine
from refinemotion.sample import LabelSampler
from refinemotion.trails import TrackSampler
from refinemotion.video import Video

RECIPE = Recipe(steps=2, batch=2, crop=(64, 64), iters=2)


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return make_model('raft-mini').eval()


@pytest.fixture(scope='module')
def frames(): return scenes.make_scene(64, 96, 6, seed=1).frames


def taught(model, labels):
    student = deepcopy(model)
    finetune(student, LabelSampler(labels, RECIPE.batch, RECIPE.crop), RECIPE, progress=False)
    return weights_hash(student)


def test_rejected_labels_teach_nothing(model, frames, tmp_path):
    "Other values where the filter said no, even none at all, change no bit of the result."
    labels = label_video(frames, model, tmp_path/'labels', iters=2, progress=False)
    filter_labels(labels, alpha=.5, beta=.5, progress=False)
    expected, rejected = taught(model, labels), 0
    for i in range(len(labels)):
        path = labels.folder/'flow'/f'{i:06d}.npz'
        flows, keeps = dict(np.load(path)), dict(zip(('fwd', 'bwd'), labels.keep(i)))
        for name, keep in keeps.items():
            flows[name][:, ~keep.numpy()] = np.nan
            rejected += int((~keep).sum())
        np.savez(path, **flows)
    assert 0 < rejected < 2*len(labels)*64*96
    assert taught(model, labels) == expected


def test_refinement_is_blind(model, frames, tmp_path, monkeypatch):
    "No measure of truth is called, and no held-out pair is drawn."
    def forbidden(*args, **kwargs): raise AssertionError('ground truth in the loop')
    for module, names in ((evaluate, ('epe', 'end_point_error', 'flow_metrics', 'tapvid_metrics', 'sparse_errors', 'pck', 'ate', 'evaluate')),
            (scenes, ('load_clip', 'solve', 'follow')), (datasets, ('tapvid_davis', 'open_dataset'))):
        for name in names: monkeypatch.setattr(module, name, forbidden)
    drawn, draw = set(), LabelSampler.draw
    def record(self, step):
        items = draw(self, step)
        drawn.update(place.pair for place, _ in items)
        return items
    monkeypatch.setattr(LabelSampler, 'draw', record)
    result = refine(frames, model, out=tmp_path/'out', iters=2, alpha=9, beta=99, recipe=Recipe(steps=8, batch=2, crop=(64, 64), iters=1), gate=False, progress=False)
    train, held = split_pairs(len(result.labels))
    assert drawn <= set(train) and not drawn & set(held) and held
    assert weights_hash(result.model) != weights_hash(model)


def test_refinement_on_tracks_is_blind(tmp_path, monkeypatch):
    "The same for a tracker; and no window that shares a frame with a held-out one is drawn."
    def forbidden(*args, **kwargs): raise AssertionError('ground truth in the loop')
    for module, names in ((evaluate, ('tapvid_metrics', 'pck', 'ate', 'evaluate')), (scenes, ('load_clip', 'solve', 'follow')), (datasets, ('tapvid_davis', 'open_dataset'))):
        for name in names: monkeypatch.setattr(module, name, forbidden)
    drawn, draw = set(), TrackSampler.draw
    def record(self, step):
        items = draw(self, step)
        drawn.update(i for i, *_ in items)
        return items
    monkeypatch.setattr(TrackSampler, 'draw', record)
    torch.manual_seed(0)
    tracker = make_model('pips-mini').eval()
    clip = torch.randint(0, 256, (26, 3, 64, 64), dtype=torch.uint8)
    how = dict(points=16, within=99., recipe=dict(steps=6, crop=(48, 48), iters=1), iters=1, gate=False, progress=False)
    result = refine(clip, tracker, out=tmp_path/'out', **how)
    starts = result.labels.story['starts']
    assert drawn and all(abs(starts[i] - starts[-1]) >= 8 for i in drawn)
    again = refine(clip, tracker, out=tmp_path/'again', **how)
    assert weights_hash(again.model) == weights_hash(result.model) != weights_hash(tracker)


def test_a_stop_while_moving_the_result_loses_nothing(model, frames, tmp_path, monkeypatch):
    "Overwriting replaces the marker last, so a broken move is never taken for a whole result."
    out, quick = tmp_path/'out', dict(iters=1, alpha=9, beta=99, recipe=Recipe(steps=1, crop=(64, 64), iters=1), progress=False)
    refine(frames[:3], model, out=out, **quick)
    monkeypatch.setattr(refinemotion.refine, '_take', lambda *parts: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt): refine(frames[:3], model, out=out, overwrite=True, **quick)
    assert not (out/'config.json').exists() and (tmp_path/'out.partial'/'model.safetensors').exists()


def test_a_trial_shows_refinement_the_frames_alone(model, frames, tmp_path, monkeypatch):
    "A video of a set brings its truth along; what refine is given has none."
    shown = []
    def record(video, *args, **how):
        shown.append(video)
        return refine(video, *args, **how)
    monkeypatch.setattr(trials, 'refine', record)
    points = datasets.PointVideo('scene', Video(frames), torch.zeros(1, len(frames), 2), torch.ones(1, len(frames)).bool())
    scene = datasets.Dataset('scenes', 'tapvid', ['scene'], {'scene': points}.get)
    trials.trial(model, scene, tmp_path/'trial', settings=['native-1'], iters=1, alpha=9, beta=99, recipe=RECIPE, progress=False)
    assert [type(o) for o in shown] == [Video] and not hasattr(shown[0], 'xy')
