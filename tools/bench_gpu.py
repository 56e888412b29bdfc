"""What a GPU does, recorded and unrecorded, side by side: labels, a training step, and one refinement of RAFT-large from frames to model.

    python tools/bench_gpu.py                        with weights that are fetched
    python tools/bench_gpu.py --large raft-sintel.pth --small raft-small.pth
"""
import argparse, tempfile, time
from contextlib import contextmanager

import pandas as pd
import torch

from refinemotion import finetune, raft, refine
from refinemotion.evaluate import epe
from refinemotion.models import EXACT, FAST, load_model
from refinemotion.sample import Batch
from refinemotion.scenes import make_scene, real_camera

recorder = raft.recorder


@contextmanager
def unrecorded():
    "Nothing is recorded inside the block."
    places = raft, finetune
    for place in places: place.recorder = lambda model: lambda name, run, *inputs: run(*inputs)
    try: yield
    finally:
        for place in places: place.recorder = recorder


def milliseconds(work, times:int=8) -> float:
    "Of one round, after three for warming up and recording."
    for _ in range(3): work()
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(times): work()
    torch.cuda.synchronize()
    return 1e3*(time.perf_counter() - begun)/times


def labels(net, clip, iters): return milliseconds(lambda: list(net.stream_both_ways(clip, iters)), 3)/(len(clip)-1)


def step(net, scene, precision):
    recipe = finetune.Recipe(iters=12, precision=precision)
    net, optimiser = finetune.train_mode(net), torch.optim.AdamW(net.parameters(), lr=1e-6)
    a, b = (scene.frames[i:i+1, :, :192, :320].float() for i in (0, 1))
    batch = Batch(torch.cat([a, b]), torch.cat([b, a]), torch.cat([scene.fwd[:1], scene.bwd[:1]])[..., :192, :320], torch.ones(2, 192, 320, dtype=torch.bool, device='cuda'))
    return milliseconds(lambda: finetune.train_step(net, batch, optimiser, recipe))


def both(work) -> dict:
    with unrecorded(): before = work()
    return {'unrecorded': before, 'recorded': work()}


def whole(net, scene):
    "One refinement, in seconds, and what it did to the error."
    film = real_camera(scene.frames, seed=3).cpu()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        found = refine.refine(film, net, out=f'{folder}/out', pace='fast', recipe=dict(precision='bfloat16'), progress=False)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begun
    errors = [sum(epe(o.flow(film[i:i+1], film[i+1:i+2])[0], scene.fwd[i]) for i in range(0, len(film)-1, 6)) for o in (net, found.model)]
    return f'{len(film)} frames, {film.shape[-2]}×{film.shape[-1]}, raft-large: {seconds:.1f} s from frames to model; end-point error {100*(errors[1]/errors[0]-1):+.1f} %'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('small', 'large'): parser.add_argument(f'--{name}', metavar='WEIGHTS', help=f'a file for raft-{name}; without it, the default weights')
    args = parser.parse_args()
    print(torch.__version__, torch.cuda.get_device_name())
    scene, rows = make_scene(436, 1024, 50, seed=77, layers=9, speed=(.3, 20.), device='cuda'), {}
    for name in ('small', 'large'):
        net = lambda pace=EXACT: load_model(f'raft-{name}', getattr(args, name), 'cuda', pace)
        for words, pace, iters in (('exact, 32 iterations', EXACT, 32), ('exact, 12 iterations', EXACT, 12), ('FAST, 12 iterations', FAST, 12)):
            rows[f'raft-{name}', f'labels of a pair, {words}'] = both(lambda: labels(net(pace), scene.frames[:3], iters))
        for precision in ('float32', 'bfloat16'): rows[f'raft-{name}', f'training step, {precision}'] = both(lambda: step(net(), scene, precision))
    table = pd.DataFrame(rows).T
    print(table.assign(**{'times faster': table.unrecorded/table.recorded}).round(1).to_string())
    print(whole(load_model('raft-large', args.large, 'cuda', FAST), scene))


if __name__ == '__main__': main()
