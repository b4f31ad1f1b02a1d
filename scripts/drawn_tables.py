"""The scores of drawn scenes as tables: where a run looks, what its answers hang on."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MOST_CYCLES = 8  # columns of a spectrum


def drawn_parts(result: Mapping[str, Any], width: int) -> Iterator[str]:
    """Yield the tables of drawn scenes, each with what it means in lines of ``width``."""
    from breadth.train.study.tables import markdown

    for shown, header, rows, means in (
        ("grounding", _GROUNDING, _grounding_rows, _GROUNDING_MEANS),
        ("robustness", _ROBUSTNESS, _robustness_rows, _ROBUSTNESS_MEANS),
        ("frequency", _FREQUENCY, _frequency_rows, _FREQUENCY_MEANS),
    ):
        if result[shown]:
            yield markdown(header, list(rows(result)))
            yield textwrap.fill(means, width)
            if shown == "robustness" and result["held_out_combinations"]:
                error = percent(result["held_out_combinations"]["error_over_combinations"])
                yield f"The unseen score's error over combinations, few as they are, is {error}."
    if spectrum := result["token_spectrum"]:
        cycles = _columns(spectrum["cycles"])
        yield markdown(
            ["tokens", *(f"{f} cycles" for f in cycles)], list(_spectrum_rows(spectrum, cycles))
        )
        yield textwrap.fill(_SPECTRUM_MEANS, width)


_GROUNDING = ["map", "of", "n", "pointing", "chance", "middle", "random weights", "energy"]
_GROUNDING_MEANS = (
    "Where a run looks for a thing that is named, in percent: the hottest pixel is in its box "
    "(pointing), and how much of the heat is (energy). Beside it the middle of the picture and the "
    "same model with random weights; in brackets how far above them the run is. Chance is the "
    "box's share of the picture."
)
_ROBUSTNESS = ["by", "task", "change", "n", "chance", "before", "after", "difference", "flips"]
_ROBUSTNESS_MEANS = (
    "The same scenes once more with one thing changed: answers should stay on another background "
    "and without companions, and change without the main object; unseen is a combination of colour "
    "and shape that no training scene has."
)
_FREQUENCY = [
    "probe",
    "chance",
    "largest",
    "whole",
    "low",
    "low, carried",
    "high",
    "high, carried",
]
_FREQUENCY_MEANS = (
    "Probes on whole pictures and on the low or high frequencies alone, fitted to those or carried "
    "over from whole pictures. Of gratings the low, the high or both frequencies tell the class."
)
_SPECTRUM_MEANS = (
    "Log amplitude of the patch tokens at so many cycles per picture less that of their mean, by "
    "layer: the higher, the faster the tokens change across the picture."
)


def percent(share: float) -> str:
    """Write a share in percent."""
    return f"{100 * share:.1f}"


def _grounding_rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for method, things in result["grounding"]["maps"].items():
        for thing in sorted(things, reverse=True):  # the main object first
            pointing, energy = things[thing]["pointing"], things[thing]["energy"]
            beside = [
                f"{percent(pointing[other])} ({_signed(pointing[f'above_{other}'])})"
                for other in ("middle", "random")
            ]
            yield [
                method,
                thing,
                str(pointing["n"]),
                _with_error(pointing),
                percent(pointing["chance"]),
                *beside,
                percent(energy["value"]),
            ]


def _robustness_rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for by, tasks in result["robustness"].items():
        for task, found in tasks.items():
            for change, scores in found["changes"].items():
                flips = _with_error(scores["flips"])
                yield [by.replace("_", "-"), task, change, *_compared(scores), flips]
    if unseen := result["held_out_combinations"]:
        yield ["zero-shot", unseen["task"], "unseen", *_compared(unseen), ""]


def _compared(scores: Mapping[str, Any]) -> list[str]:
    before, after = scores["before"], scores["after"]
    return [
        str(before["n"]),
        percent(before["chance"]),
        percent(before["value"]),
        percent(after["value"]),
        _signed(scores["difference"]),
    ]


def _frequency_rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for task, bands in result["frequency"]["probe"].items():
        whole = bands["all"]["refitted"]
        parts = [
            _with_error(bands[band][way])
            for band in ("low", "high")
            for way in ("refitted", "carried")
        ]
        shares = [percent(whole[name]) for name in ("chance", "majority")]
        name = task if task in result["zero_shot"] or task in result["probe"] else f"{task} grating"
        yield [name, *shares, _with_error(whole), *parts]


def _spectrum_rows(spectrum: Mapping[str, Any], cycles: Sequence[int]) -> Iterator[list[str]]:
    for depth, layer in enumerate(spectrum["layers"]):
        values, errors = layer["relative_log_amplitude"], layer["standard_error"]
        name = f"after block {depth}" if depth else "before the blocks"
        yield [name, *(f"{values[f]:+.2f} ± {errors[f]:.2f}" for f in cycles)]


def _columns(cycles: Sequence[int]) -> list[int]:
    """Choose frequencies evenly, the finest among them; at the lowest all is 0."""
    step = -(-(len(cycles) - 1) // _MOST_CYCLES)
    return sorted(cycles[:0:-step])


def _with_error(score: Mapping[str, Any]) -> str:
    return f"{percent(score['value'])} ± {percent(score['standard_error'])}"


def _signed(gained: Mapping[str, Any]) -> str:
    return f"{100 * gained['value']:+.1f} ± {percent(gained['standard_error'])}"
