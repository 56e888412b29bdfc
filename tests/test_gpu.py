"A GPU gives the answers of the CPU, recorded or not, and the same ones every time."
import av, pytest, torch
from copy import deepcopy

from refinemotion.finetune import Recipe, finetune, train_mode, train_step
from refinemotion.models import FAST, load_model, weights_hash
from refinemotion.refine import refine
from refinemotion.sample import Batch
from refinemotion.scenes import CAMERA, add_noise, make_scene, real_camera, scene_pairs, textures

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')

@pytest.fixture(scope='module')
def scene(): return make_scene(128, 160, 8, seed=4)

@pytest.fixture(scope='module')
def bank(): return textures(12, size=64, seed=1)

def lesson(bank, step, device='cpu', both=True):
    pairs = scene_pairs(2, 96, 128, seed=step, bank=bank, both=both, device=device)
    return Batch(pairs.a, pairs.b, pairs.flow, pairs.visible)

def test_flow_is_that_of_the_cpu(scene):
    there, here = load_model('raft-mini', device='cuda'), load_model('raft-mini', device='cpu')
    for pair, expected in zip(there.stream_both_ways(scene.frames), here.stream_both_ways(scene.frames)): # the third pair is recorded, the others replayed
        for flow, other in zip(pair, expected): assert (flow.cpu() - other).norm(dim=0).mean() < 1e-3

def test_on_demand_is_the_same(scene):
    net = load_model('raft-mini', device='cuda')
    whole = [fwd for fwd, _ in net.stream_both_ways(scene.frames)]
    net.pace = type(net.pace)(budget=0)
    for flow, (other, _) in zip(whole, net.stream_both_ways(scene.frames)): assert (flow - other).norm(dim=0).mean() < 1e-3

def test_half_precision_is_near(scene):
    fast, exact = (load_model('raft-mini', device='cuda', pace=pace) for pace in (FAST, 'exact'))
    for (flow, _), (other, _) in zip(fast.stream_both_ways(scene.frames), exact.stream_both_ways(scene.frames)): assert 0 < (flow - other).norm(dim=0).median() < .2

@pytest.mark.parametrize('both', (True, False))
def test_recorded_steps_teach_the_same(bank, both):
    start, recipe, weights = load_model('raft-mini', device='cuda'), Recipe(iters=6, both=both), []
    for records in (True, False):
        net = train_mode(deepcopy(start))
        net.records = records
        optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4)
        losses = [train_step(net, lesson(bank, step, both=both), optimiser, recipe) for step in range(6)]
        weights.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
        assert all(loss > 0 for loss in losses)
    moved = (weights[1] - torch.cat([p.detach().flatten() for p in start.parameters()])).norm()
    assert (weights[0] - weights[1]).norm() < .02*moved

def test_two_shapes_take_turns(bank):
    start, weights = load_model('raft-mini', device='cuda'), []
    small, large = lesson(bank, 0), Batch(*(torch.cat([o, o.flip(-1)], -1) for o in lesson(bank, 1)))
    for records in (True, False):
        net = train_mode(deepcopy(start))
        net.records = records
        optimiser = torch.optim.SGD(net.parameters(), lr=1e-5)
        for step in range(10): train_step(net, (small, large)[step % 2], optimiser, Recipe(iters=4, tail=2))
        weights.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    moved = (weights[1] - torch.cat([p.detach().flatten() for p in start.parameters()])).norm()
    assert (weights[0] - weights[1]).norm() < .02*moved

@pytest.mark.parametrize('precision', ('float32', 'bfloat16'))
def test_same_seed_same_weights(bank, precision):
    found = set()
    for _ in range(2):
        net = load_model('raft-mini', device='cuda')
        finetune(net, lambda step: lesson(bank, step, 'cuda'), Recipe(steps=8, iters=6, precision=precision), progress=False)
        found.add(weights_hash(net))
    assert len(found) == 1

def test_scenes_are_the_same(bank):
    for mine, other in zip(lesson(bank, 3, 'cuda'), lesson(bank, 3)):
        assert ((mine.cpu().float() - other.float()).abs() < .01).float().mean() > .99 # a few pixels of an outline fall on its other side

def test_camera_there_and_here(scene):
    spoilt = real_camera(scene.frames.cuda(), seed=2)
    assert spoilt.is_cuda and torch.equal(spoilt, real_camera(scene.frames.cuda(), seed=2))
    calm = tuple(effect for effect in CAMERA if effect is not add_noise) # noise is drawn where the frames are, by another generator
    there, here = (real_camera(frames, seed=2, effects=calm) for frames in (scene.frames.cuda(), scene.frames))
    assert (there.cpu().float() - here.float()).abs().mean() < 1

@pytest.mark.skipif(not hasattr(av, 'open'), reason='needs av')
def test_refine(scene, tmp_path):
    result = refine(scene.frames, out=tmp_path/'out', device='cuda', recipe=dict(steps=12), progress=False)
    assert len(result.losses) == 12 and result.report.exists()
