"""A folder of photographs: 64x64 crops of scikit-learn's two bundled ones, a
convolutional VAE, and its reconstructions against the mean image.

python -m benchmarks.quality.photographs
"""

import dataclasses
import pathlib

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.shared.commands import run
from vae_tf import command_line
from vae_tf.pictures import figures
from vae_tf.settings import Settings, setting

SIZE = 64
TRAIN = (
    f"train.py --image_size {SIZE} --channels 3 --network conv "
    "--likelihood discretized_logistic --latent_dim 32 --batch_size 16"
)


@dataclasses.dataclass(frozen=True)
class Photographs(Settings):
    directory: str = setting(
        "runs/photographs", "where crops, run and export are kept"
    )
    epochs: int = setting(200, "of training", minimum=1)
    stride: int = setting(
        SIZE,
        "pixels from one crop to the next; below 64, test crops share pixels "
        "with training crops",
        minimum=1,
    )


def cut_crops(folder: pathlib.Path, stride: int) -> None:
    """Writes the crops, a subfolder for each photograph."""
    for number, photograph in enumerate(load_sample_images().images):
        place = folder / f"photograph-{number}"
        place.mkdir(parents=True, exist_ok=True)
        height, width, _ = photograph.shape
        for top in range(0, height - SIZE + 1, stride):
            for left in range(0, width - SIZE + 1, stride):
                crop = photograph[top : top + SIZE, left : left + SIZE]
                Image.fromarray(crop).save(place / f"{top}-{left}.png")


def main(given):
    settings = Photographs(**given)
    directory = pathlib.Path(settings.directory)
    crops, run_dir = directory / "crops", directory / "run"
    cut_crops(crops, settings.stride)
    begun = ["--resume"] if (run_dir / "config.json").exists() else []
    run(
        TRAIN,
        *("--dataset", str(crops), "--epochs", str(settings.epochs)),
        *("--run_dir", str(run_dir), *begun),
    )
    run("evaluate.py", "--run_dir", str(run_dir))
    run(
        "export.py",
        *("--run_dir", str(run_dir), "--export_dir", str(directory / "bundle")),
    )

    import vae_tf

    vae = vae_tf.load(run_dir)
    data = vae_tf.load_data(
        str(crops),
        image_size=SIZE,
        channels=3,
        likelihood="discretized_logistic",
    )
    train, test = (
        np.concatenate(list(split.as_numpy_iterator()))
        for split in (data.train, data.test)
    )
    reconstructions = np.concatenate(
        [vae.reconstruct(images) for images in data.test]
    )
    error = np.mean((reconstructions - test) ** 2)
    baseline = np.mean((train.mean(0) - test) ** 2)
    print(
        f"{len(train)} crops to train on, {len(test)} to test on\n\n"
        "| reconstruction | mean squared error |\n|---|---|\n"
        f"| mean training image | {baseline:.5f} |\n"
        f"| VAE | {error:.5f} ({1 - error / baseline:.0%} less) |"
    )
    # Above each reconstruction, its original.
    pairs = np.stack([test, reconstructions])[:, :12]
    sheet = figures.mosaic(pairs)
    path = directory / "reconstructions.png"
    Image.fromarray(np.uint8(255 * sheet.clip(0, 1))).save(path)
    print(f"\n{path}: test images above, reconstructions below")


if __name__ == "__main__":
    command_line.run(Photographs, main, __doc__)
