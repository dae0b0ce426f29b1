"""A small image server that reports its joules: a loop of denoising steps with continuous batching.

The "model" is arithmetic on the CPU, so that this runs anywhere; all about reporting is as a real server
would have it. Images of different sizes and step counts join the batch and leave it, a unit of work is a
denoised patch of 16 × 16 pixels, and what comes out is images. Run it beside a sidecar, or alone::

    python docs/examples/diffusion_loop.py --images 12 --gpu GPU-…

On a real GPU take the UUID from torch, ``f"GPU-{torch.cuda.get_device_properties(0).uuid}"``, and call
``torch.cuda.synchronize()`` before a step ends: a step that returned is not yet a step that ran.
"""

from __future__ import annotations

import argparse
import random
from collections import deque
from dataclasses import dataclass, field

from joulescope.sdk import Engine, Request

PATCH_PIXELS = 16 * 16
MAX_BATCH_PATCHES = 160


@dataclass
class Image:
    """One image on its way from noise to a picture."""

    name: str
    side_pixels: int
    steps_left: int
    latents: list[float] = field(default_factory=list)

    @property
    def patches(self) -> int:
        return self.side_pixels**2 // PATCH_PIXELS


def denoise(images: list[Image], seconds_per_patch: float) -> None:
    """One step of the model for a batch: real arithmetic, as much as the batch has patches."""
    for image in images:
        image.latents = image.latents or [random.gauss(0.0, 1.0) for _ in range(image.patches)]
        for _ in range(max(round(seconds_per_patch * 2e7), 1)):
            image.latents = [0.98 * each for each in image.latents]
        image.steps_left -= 1


def serve(engine: Engine, queue: deque[Image], seconds_per_patch: float) -> list[tuple[Image, Request]]:
    """Runs until the queue is empty; images join as soon as there is room, and leave when they are done."""
    batch: list[tuple[Image, Request]] = []
    done: list[tuple[Image, Request]] = []
    while queue or batch:
        room = MAX_BATCH_PATCHES - sum(image.patches for image, _ in batch)
        while queue and (queue[0].patches <= room or not batch):
            image = queue.popleft()
            room -= image.patches
            batch.append((image, engine.request_started(image.name)))
        with engine.step({request: image.patches for image, request in batch}) as step:
            denoise([image for image, _ in batch], seconds_per_patch)
            finished = [(image, request) for image, request in batch if not image.steps_left]
            step.produced(request for _, request in finished)
        for _, request in finished:
            engine.request_ended(request, "stop")
        batch = [each for each in batch if each not in finished]
        done += finished
    return done


def orders(count: int, seed: int) -> deque[Image]:
    """What clients ask for: small and large images, drafts and careful ones."""
    chance = random.Random(seed)
    return deque(
        Image(f"image-{number}", chance.choice([64, 96, 128]), chance.choice([4, 8, 20]))
        for number in range(count)
    )


def main() -> None:
    """Serves some images and says what was reported."""
    parser = argparse.ArgumentParser(description="An image server's loop that reports its joules.")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--gpu", action="append", help="UUID of a GPU (default: CUDA_VISIBLE_DEVICES)")
    parser.add_argument("--seconds-per-patch", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args()
    with Engine(
        "toy-diffusion",
        model="example/toy-diffusion",
        gpus=chosen.gpu,
        unit="image",
        work_unit="patch",
        software="diffusion_loop",
    ) as engine:
        with engine.overhead("warmup"):
            denoise([Image("warmup", 64, 1)], chosen.seconds_per_patch)
        done = serve(engine, orders(chosen.images, chosen.seed), chosen.seconds_per_patch)
        heard = "a sidecar listens" if engine.connected else "no sidecar listens"
    for image, request in done:
        print(f"{image.name}: {image.side_pixels} pixels, {request.work} patches denoised")
    print(f"{len(done)} images; {heard}")


if __name__ == "__main__":
    main()
