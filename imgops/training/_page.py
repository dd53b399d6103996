"""The page of a run, ``report.html``: curves, sheets over time, settings and machine; it needs no connection."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .._settings import resolution_text
from ..data.files import write_file
from ._curves import Series, drawing, number
from ._opening import device_name, made_by
from ._progress import about
from ._report import STATS
from .config import RunConfig
from .trainer import Trainer

PAGE = "report.html"
#: the drawings that hold several curves: by title, what the names of their curves begin with, or end with
_TOGETHER = {
    "Losses": (("loss_",), ()),
    "Logits": (("logit_",), ()),
    "Augmentation": ((), ("_p",)),
}
#: titles of curves alone, in the order of the page behind those of what is not listed here, such as distances
_TITLES = {
    "r1": "R1 penalty",
    "penalty": "Gradient penalty",
    "path_length": "Path length",
    "psnr": "PSNR of reproductions, dB",
    "kl": "Divergence of codes, nats per picture",
    "perplexity": "Perplexity of codes",
    "images_per_second": "Images per second",
    "bad_gradients": "Gradients not finite",
}
#: most sheets that the page shows side by side, and most that its slider has
_GRID, _SLIDER = 12, 400
#: what a record has beside measured values
_CLOCK = ("images", "seconds")


def write_page(trainer: Trainer, out: Path, total: int) -> None:
    """Write the page of a run, whole, from what its folder holds.

    Args:
        trainer: of the run, whose ``data`` is set.
        out: the run's folder.
        total: real images that the run will show.

    Raises:
        OSError: it cannot be written; the page of before stays.
    """
    records = [json.loads(line) for line in (out / STATS).read_text().splitlines()]
    name = html.escape(out.resolve().name)
    body = [
        f"<h1>{name}</h1>",
        _progress(trainer, total, records),
        _curves(records),
        _sheets([path.name for path in sorted((out / "samples").glob("[0-9]*.png"))]),
        '<h2>Data</h2><img class="sheet" src="reals.png" alt="pictures of the data">',
        _table(_facts(trainer), "Run"),
        _settings(trainer.config, trainer.processes.count),
    ]
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>{_HEAD}<main>{"".join(body)}'
    # names of files need not be valid text
    write_file(out / PAGE, f"{page}</main></html>\n".encode("utf-8", "replace"))


def set_apart(config: RunConfig, processes: int) -> dict[str, Any]:
    """{setting: what the preset, or else the default, says} of the settings of a resolved configuration that differ."""
    left_open: dict[str, Any] = {"batch": None}
    of_preset = dataclasses.replace(config, **left_open).from_preset(processes)
    usual = {**config.from_preset(processes), "batch": of_preset["batch"]}
    for field in dataclasses.fields(config):
        if field.default is not dataclasses.MISSING:
            usual.setdefault(field.name, field.default)
    # auto is resolved to what there is
    usual.pop("device")
    return {name: value for name, value in usual.items() if getattr(config, name) != value}


def grouped(records: Iterable[Mapping[str, float]]) -> dict[str, dict[str, Series]]:
    """{title of a drawing: {name: curve}} of records, those of distances first."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for name, value in record.items():
            if name not in _CLOCK:
                curves.setdefault(name, []).append((record["images"], value))
    drawings: dict[str, dict[str, Series]] = {}
    for name, series in curves.items():
        within = [
            title for title, (begins, ends) in _TOGETHER.items() if name.startswith(begins) or name.endswith(ends)
        ]
        drawings.setdefault(within[0] if within else _TITLES.get(name, name), {})[name] = series
    order = [*_TOGETHER, *_TITLES.values()]
    return dict(sorted(drawings.items(), key=lambda item: order.index(item[0]) if item[0] in order else -1))


def _progress(trainer: Trainer, total: int, records: list[dict[str, float]]) -> str:
    share = min(trainer.seen / total, 1)
    said = [f"{trainer.seen:,} of {total:,} images", f"{about(trainer.seconds)} of training"]
    if records and share < 1:
        left = (total - trainer.seen) / records[-1]["images_per_second"]
        said.append(f"about {about(left)} left")
    return f'<div class="bar"><i style="width:{share:.1%}"></i></div><p>{" · ".join(said)}</p>'


def _curves(records: list[dict[str, float]]) -> str:
    figures = []
    for title, curves in grouped(records).items():
        last = (
            f'<span class="c{k}">{html.escape(name) * (name != title)} {number(series[-1][1])}</span>'
            for k, (name, series) in enumerate(curves.items())
        )
        figures.append(
            f"<figure><figcaption>{html.escape(title)} {' '.join(last)}</figcaption>{drawing(curves)}</figure>"
        )
    return f'<h2>Curves</h2><p>Over the real images shown.</p><div class="curves">{"".join(figures)}</div>'


def _sheets(names: list[str]) -> str:
    """The newest sheet with a slider for the earlier ones, and some of all side by side."""
    if not names:
        return ""
    chosen = _spread(names, _SLIDER)
    grid = "".join(
        f'<a href="samples/{name}"><img loading="lazy" src="samples/{name}" alt="{_images(name)}">{_images(name)}</a>'
        for name in reversed(_spread(names, _GRID))
    )
    return (
        f'<h2>Samples</h2><img class="sheet" id="sheet" src="samples/{chosen[-1]}" alt="samples">'
        f'<p><input id="when" type="range" min="0" max="{len(chosen) - 1}" value="{len(chosen) - 1}" hidden '
        f'aria-label="which sheet"> <output id="then">{_images(chosen[-1])}</output></p>'
        f"<script>sheets({json.dumps([int(Path(name).stem) for name in chosen])})</script>"
        f'<div class="sheets">{grid}</div>'
    )


def _spread(names: list[str], count: int) -> list[str]:
    """At most so many of them, evenly, the first and the last among them."""
    if len(names) <= count:
        return names
    return [names[round(k * (len(names) - 1) / (count - 1))] for k in range(count)]


def _images(name: str) -> str:
    return f"{int(Path(name).stem):,} images"


def _facts(trainer: Trainer) -> dict[str, str]:
    data, classes = trainer.data or {}, trainer.class_names
    shown = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
    count = trainer.processes.count
    return {
        "pictures": f"{data.get('count', 0):,}",
        "classes": f"{len(classes)} ({shown})" if classes else "none",
        "device": device_name(trainer.device),
        "processes": str(count),
        **made_by(trainer.device.type),
    }


def _settings(config: RunConfig, processes: int) -> str:
    values, usual = config.as_json(), set_apart(config, processes)
    first = [name for name in values if name in usual]
    rows = {
        name: f"{_text(name, values[name])} <i>(instead of {_text(name, usual[name])})</i>"
        if name in usual
        else _text(name, values[name])
        for name in [*first, *(name for name in values if name not in usual)]
    }
    note = "<p>Marked: what differs from the preset, or from the default.</p>" if first else ""
    return _table(rows, "Settings", note, marked=first, escaped=True)


def _text(name: str, value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if name == "resolution":
        return resolution_text(value)
    if isinstance(value, Mapping):
        value = [f"{key}={weight:g}" for key, weight in value.items()]
    if isinstance(value, (tuple, list)):
        return html.escape(", ".join(map(str, value)))
    return f"{value:g}" if isinstance(value, float) else html.escape(str(value))


def _table(
    rows: Mapping[str, str], title: str, note: str = "", marked: Iterable[str] = (), escaped: bool = False
) -> str:
    lines = "".join(
        f"<div{' class=own' if name in marked else ''}><dt>{html.escape(name)}</dt>"
        f"<dd>{value if escaped else html.escape(value)}</dd></div>"
        for name, value in rows.items()
    )
    return f"<h2>{title}</h2>{note}<dl>{lines}</dl>"


_HEAD = """<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<style>
:root { --ink: #1d2126; --soft: #68707a; --line: #e2e5e9; --page: #fff; --own: #fff3d6;
  --c0: #2468c4; --c1: #d3602a; --c2: #2f8f5b; --c3: #8b54b8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #98a1ab; --line: #32373d; --page: #16191c;
  --own: #3a3218; --c0: #6ba6f5; --c1: #f29464; --c2: #68c794; --c3: #bd90e4; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 16px; }
h1 { font-size: 24px; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 32px 0 4px; }
p { margin: 4px 0 8px; color: var(--soft); }
.bar { height: 6px; border-radius: 3px; background: var(--line); }
.bar i { display: block; height: 100%; border-radius: 3px; background: var(--c0); }
.curves { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); }
figure { margin: 0; }
figcaption { font-weight: 600; }
figcaption span { font-weight: 400; font-size: 13px; margin-left: 8px; white-space: nowrap; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 11px; fill: var(--soft); }
svg .grid { stroke: var(--line); }
polyline { fill: none; stroke-width: 1.5; stroke-linejoin: round; }
polygon { stroke: none; opacity: .18; }
polyline.c0 { stroke: var(--c0); } polygon.c0, circle.c0 { fill: var(--c0); } span.c0 { color: var(--c0); }
polyline.c1 { stroke: var(--c1); } polygon.c1, circle.c1 { fill: var(--c1); } span.c1 { color: var(--c1); }
polyline.c2 { stroke: var(--c2); } polygon.c2, circle.c2 { fill: var(--c2); } span.c2 { color: var(--c2); }
polyline.c3 { stroke: var(--c3); } polygon.c3, circle.c3 { fill: var(--c3); } span.c3 { color: var(--c3); }
.sheet { display: block; max-width: 100%; min-width: min(100%, 512px); margin: 8px 0; image-rendering: pixelated; }
#when { width: min(100%, 512px); vertical-align: middle; }
.sheets { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
.sheets a { color: var(--soft); font-size: 13px; text-decoration: none; }
.sheets img { display: block; width: 100%; }
dl { margin: 8px 0; columns: 340px; column-gap: 24px; }
dl div { display: flex; gap: 12px; padding: 2px 6px; border-bottom: 1px solid var(--line); break-inside: avoid; }
dl .own { background: var(--own); font-weight: 600; }
dt { flex: 0 0 12em; color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
dd i { font-weight: 400; color: var(--soft); }
</style>
<script>
function sheets(images) {
  const when = document.getElementById("when"), sheet = document.getElementById("sheet");
  when.hidden = images.length < 2;
  when.oninput = () => {
    const shown = images[when.value];
    sheet.src = "samples/" + String(shown).padStart(10, "0") + ".png";
    document.getElementById("then").textContent = shown.toLocaleString("en") + " images";
  };
}
</script>
"""
