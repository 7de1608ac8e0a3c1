"""Features in the static page, in Chromium, beside the same weights in 8 bits; needs a built page and playwright."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from modeling_pcl.options import option

from . import report

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")

# Milliseconds of each of many calls on one face, after some that do not count.
TIME = """async ([dtype, side, count]) => {
    const { encode, openModel } = await import("./model.js");
    const model = await openModel("model", dtype);
    const values = Float32Array.from({ length: 3 * side * side }, Math.random);
    const times = [];
    for (let call = 0; call < 10 + count; call++) {
        const start = performance.now();
        await encode(model, values);
        times.push(performance.now() - start);
    }
    return times.slice(10);
}"""


@dataclass
class BrowserBenchmark:
    """Which page, and how much work."""

    site: str = option("hub_cards/space_static/site", "Folder that `npm run build` wrote.")
    image_sizes: str = option("64,100", "Sides in px, with commas between them.")
    weights: str = option("fp32,q8", "Which of the page's files, with commas between them; q8 is in 8 bits.")
    calls: int = option(100, "Timed calls of one face each.")
    output_dir: str = option("runs/benchmark-browser", "Folder for results.json.")


def check_site(corpus: Dataset | None, options: BrowserBenchmark) -> Path:
    site = Path(options.site)
    if not (site / "index.html").exists():
        raise ValueError(f"`--site` must be a folder that `npm run build` wrote, got {site}, without index.html.")
    print(f"{site} in a browser without a window, one thread of {report.cpus()} CPUs")
    return site


def measure_speed(site: Path, options: BrowserBenchmark) -> dict:
    rows = []
    with serve(site) as address, open_page() as page:
        start = report.now()
        page.goto(address)
        page.wait_for_selector("#results:not([hidden])")
        print(f"The page opens with its examples answered in {report.now() - start:.1f} s")
        for side in report.integers(options.image_sizes):
            for dtype in options.weights.split(","):
                times = page.evaluate(TIME, [dtype, side, options.calls])
                row = {"weights": dtype, "px": side, **report.spread("ms", times)}
                rows.append(row | {"faces/s": 1000 / row["ms"]})
    return {"speed": ("Features of one face at a time in the browser", rows)}


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The address at which a folder is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextmanager
def open_page() -> Iterator:
    """A page of a browser without a window."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        raise OSError(f"None of {', '.join(CHROMIUM)} is installed; `apt-get install chromium` has it.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


run = functools.partial(
    report.run, name="browser", kind=BrowserBenchmark, parts={"speed": measure_speed}, prepare=check_site
)
