"""How fast the explorer's page follows the pointer, in a real browser.

python -m benchmarks.speed.explorer

Opens the page of a run, or of a server of it, in Debian's Chromium and moves
the pointer over the plane: milliseconds from a move to the picture on the
canvas, and pictures a second of a pointer that moves with every frame."""

import contextlib
import dataclasses
import os
import re
import statistics
import subprocess
import sys

from benchmarks.shared.commands import ROOT
from vae_tf import command_line
from vae_tf.settings import Settings, setting

sys.path.append(str(ROOT / "tests"))
from browser import browser  # noqa: E402 (it is the tests' own)

# Calls `act(u, v)` with places of the canvas, 0 to 1 along its sides.
MOVES = """
const plane = document.getElementById("plane");
const walk = document.getElementById("walk");
const move = (x, y) => {
  const box = plane.getBoundingClientRect();
  plane.dispatchEvent(new PointerEvent("pointermove", {
    clientX: box.left + x * box.width, clientY: box.top + y * box.height}));
};
const shown = () => new Promise(
  done => walk.addEventListener("shown", done, {once: true}));
"""
LATENCIES = f"""async count => {{
  {MOVES}
  const times = [];
  for (let i = 0; i < count; i++) {{
    await new Promise(done => setTimeout(done, 50));
    const start = performance.now(), there = shown();
    move((i * 0.618) % 1, (i * 0.414) % 1);
    await there;
    times.push(performance.now() - start);
  }}
  return times;
}}"""
PICTURES = f"""async seconds => {{
  {MOVES}
  let pictures = 0, frames = 0;
  const count = () => {{ pictures += 1; }};
  walk.addEventListener("shown", count);
  const start = performance.now();
  while (performance.now() - start < 1000 * seconds) {{
    frames += 1;
    move(0.5 + 0.4 * Math.sin(frames / 20), 0.5 + 0.4 * Math.cos(frames / 31));
    await new Promise(requestAnimationFrame);
  }}
  walk.removeEventListener("shown", count);
  return [pictures / seconds, frames / seconds];
}}"""


@dataclasses.dataclass(frozen=True)
class Explorer(Settings):
    run_dir: str = setting("runs/latest", "a trained run", path=True)
    url: str | None = setting(None, "a server of it (unset: none)")
    moves: int = setting(100, "timed one by one", minimum=10)
    seconds: int = setting(5, "of a pointer that never rests", minimum=1)


@contextlib.contextmanager
def page(settings: Explorer):
    """The address of the page, served by a process of its own."""
    place = ["--url", settings.url] if settings.url else []
    process = subprocess.Popen(
        [
            sys.executable,
            *("-m", "vae_tf.explorer", "--nobrowser", "--port=0"),
            *(f"--run_dir={settings.run_dir}", *place),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    try:
        for line in process.stdout:  # type: ignore[union-attr]  # a pipe
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield found.group()
                break
    finally:
        process.terminate()
        process.wait()


def main(given):
    settings = Explorer(**given)
    with page(settings) as address, browser() as chromium:
        tab = chromium.new_page()
        tab.goto(address)
        tab.wait_for_selector("body[data-ready]")
        first, *rest = tab.evaluate(LATENCIES, settings.moves)
        rate, frames = tab.evaluate(PICTURES, settings.seconds)
        print(tab.inner_text("#facts"))
        chromium_version = chromium.version
    print(
        "| first picture, ms | median, ms | 95%, ms | pictures/s | frames/s |"
    )
    print("|---|---|---|---|---|")
    print(
        f"| {first:.1f} | {statistics.median(rest):.1f} | "
        f"{statistics.quantiles(rest, n=20)[-1]:.1f} | {rate:.0f} | "
        f"{frames:.0f} |"
    )
    print(f"Chromium {chromium_version}, {os.cpu_count()} cores.")


if __name__ == "__main__":
    command_line.run(Explorer, main, __doc__)
