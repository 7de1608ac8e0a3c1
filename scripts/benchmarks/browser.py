"""Speed of the static page in Chromium, for float32 and 8-bit weights. Needs a built page and playwright."""

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

# Times many calls on one face, in milliseconds, after ten calls that are not counted.
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
    """The page, and the amount of work."""

    site: str = option("hub_cards/space_static/site", "Folder that `npm run build` wrote.")
    image_sizes: str = option("64,100", "Sides in px, separated by commas.")
    weights: str = option("fp32,q8", "Model files of the page, separated by commas; q8 has 8-bit weights.")
    calls: int = option(100, "Number of timed calls, with one face each.")
    output_dir: str = option("runs/benchmark-browser", "Folder for results.json.")


def check_site(corpus: Dataset | None, options: BrowserBenchmark) -> Path:
    site = Path(options.site)
    if not (site / "index.html").exists():
        raise ValueError(f"`--site` must be a folder that `npm run build` wrote, got {site}, without index.html.")
    print(f"{site} in a browser without a window, one thread of {report.available_cpus()} CPUs")
    return site


def measure_speed(site: Path, options: BrowserBenchmark) -> dict:
    rows = []
    with serve(site) as address, open_page() as page:
        start = report.now()
        page.goto(address)
        page.wait_for_selector("#results:not([hidden])")
        print(f"The page opens with its examples answered in {report.now() - start:.1f} s")
        for side in report.parse_integers(options.image_sizes):
            for dtype in options.weights.split(","):
                times = page.evaluate(TIME, [dtype, side, options.calls])
                row = {"weights": dtype, "px": side, **report.summarise("ms", times)}
                rows.append(row | {"faces/s": 1000 / row["ms"]})
    return {"speed": ("Features of one face at a time in the browser", rows)}


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP, and yield its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextmanager
def open_page() -> Iterator:
    """Open a page in a headless browser."""
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
