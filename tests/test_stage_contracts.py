"""What every registered stage promises; a new file in curate/stages is tested as it is.

A stage without defaults for all options has a class attribute ``example`` with options to use.
"""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import breadth.curate.stages as stages
from breadth.curate.schema import COLUMNS, VERDICT
from breadth.curate.stage import STAGES, Annotator, Filter, Matcher, Selector, Stage

OURS = sorted(n for n, s in STAGES.items() if s.__module__.startswith("breadth.curate.stages."))
# A network stage needs servers and a gpu stage an embedder: both have tests of their own.
MEASURING = [n for n in OURS if STAGES[n].resource == "cpu"]

CAPTIONS = [
    "a red circle above two small blue squares",
    "ein roter Kreis über zwei kleinen blauen Quadraten",
    "short",
    "",
    None,
    "line\nbreak and\ttab in a longer caption",
    "a red circle above two small blue squares",
    "一个红色的圆圈在两个蓝色方块上面",
    "   ",
    "one two three",
]
ROWS = 20


def make(name: str) -> Stage:
    """Make a stage from its defaults, or from its example."""
    return STAGES[name](**getattr(STAGES[name], "example", {}))


def pictures() -> list[bytes | None]:
    """Draw smooth noise in several formats, with copies, a broken file and a missing one."""
    rng = np.random.default_rng(0)
    made: list[bytes | None] = []
    for row in range(ROWS - 5):
        small = rng.integers(0, 256, (6, 8, 3), np.uint8)
        picture = cv2.resize(small, (80 + row, 64), interpolation=cv2.INTER_CUBIC)
        made.append(cv2.imencode((".jpg", ".png", ".webp")[row % 3], picture)[1].tobytes())
    flat = cv2.imencode(".png", np.full((50, 50), 7, np.uint8))[1].tobytes()
    return [*made, made[0], flat, flat, b"not a picture", None]


def column(name: str) -> pa.Array:
    """Make values for a column that a stage may read, null among them."""
    if name == "image":
        return pa.array(pictures(), pa.binary())
    if name == "caption":
        return pa.array([CAPTIONS[row % len(CAPTIONS)] for row in range(ROWS)], pa.string())
    if name == "uid":
        return pa.array([f"{row:032x}" for row in range(ROWS)])
    rng = np.random.default_rng(len(name))
    if "_embedding:" in name:
        flat = rng.standard_normal(ROWS * 8).astype(np.float16)
        mask = pa.array([row == 3 for row in range(ROWS)])
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), 8, mask=mask)
    kind = COLUMNS[name].type if name in COLUMNS else pa.float32()
    values: list = rng.integers(1, 900, ROWS).tolist()
    values[5] = None
    return pa.array(values).cast(kind)


def table(stage: Stage) -> pa.Table:
    """Make pairs with only the columns that a stage says it reads."""
    return pa.table({name: column(name) for name in stage.reads})


def measured(stage: Stage, pairs: pa.Table) -> pa.Table:
    """Return what ``annotate`` writes, as a table."""
    columns = stage.annotate(pairs)
    return pa.table({name: columns[name] for name in sorted(columns)})


def stored(stage: Stage, pairs: pa.Table) -> pa.Table:
    """Return the columns the engine hands to verdicts: read and written, no picture, the uid."""
    columns = {n: pairs[n] for n in pairs.column_names if n != "image"}
    columns |= {n: v for n, v in stage.annotate(pairs).items() if n != "image"}
    return pa.table({**columns, "uid": column("uid").slice(0, len(pairs))})


def same(left: pa.Table, right: pa.Table) -> bool:
    """Compare two tables; NaN equals NaN."""
    return left.to_pylist().__repr__() == right.to_pylist().__repr__()


def test_every_file_of_the_folder_is_a_stage_of_its_name():
    """A module in stages/ registers exactly one stage, under the name of its file."""
    files = {p.stem for p in Path(stages.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == set(OURS)
    for name in OURS:
        assert STAGES[name].__module__ == f"breadth.curate.stages.{name}"
        assert STAGES[name].__name__ == "".join(w.capitalize() for w in name.split("_"))


@pytest.mark.parametrize("name", OURS)
def test_a_stage_says_what_it_is_for(name):
    """Its docstring begins with one full sentence on a line of its own."""
    first = (STAGES[name].__doc__ or "").splitlines()[0]
    assert first.endswith(".") and " " in first
    assert not first.startswith(STAGES[name].__name__ + "(")  # what dataclass writes by itself


@pytest.mark.parametrize("name", OURS)
def test_a_stage_is_made_from_its_defaults_and_survives_the_way_to_a_worker(name):
    """It is one of the four kinds, constructs, pickles, and is equal to its copy."""
    stage = make(name)
    assert isinstance(stage, Annotator | Filter | Selector | Matcher)
    copy = pickle.loads(pickle.dumps(stage))
    assert copy == stage and copy.options() == stage.options()
    assert type(stage)(**stage.options()) == stage


@pytest.mark.parametrize("name", OURS)
def test_a_stage_declares_columns_and_thresholds_that_exist(name):
    """Thresholds are options, written columns have Arrow types and are not the ledger's own."""
    stage = make(name)
    assert set(stage.thresholds) <= set(stage.options())
    assert all(isinstance(kind, pa.DataType) for kind in stage.writes.values())
    assert not set(stage.writes) & set(VERDICT)
    assert len(set(stage.reads)) == len(stage.reads)
    assert stage.resource in ("network", "cpu", "gpu")
    for column_name in set(stage.writes) & set(COLUMNS):
        assert stage.writes[column_name] == COLUMNS[column_name].type


@pytest.mark.parametrize("name", MEASURING)
def test_a_stage_writes_what_it_declares(name):
    """Columns, their types and one value per row are as declared, for an empty table too."""
    stage = make(name)
    for pairs in (table(stage), table(stage).slice(0, 0)):
        written = stage.annotate(pairs)
        assert set(written) == set(stage.writes)
        for column_name, values in written.items():
            assert values.type == stage.writes[column_name]
            assert len(values) == len(pairs)


@pytest.mark.parametrize("name", MEASURING)
def test_a_stage_measures_each_pair_by_itself(name):
    """Asked again, by halves or in another order, it measures the same of every pair."""
    stage = make(name)
    pairs = table(stage)
    if not stage.writes:
        return
    whole = measured(stage, pairs)
    assert same(whole, measured(stage, pairs))
    halves = [measured(stage, pairs.slice(0, 7)), measured(stage, pairs.slice(7))]
    assert same(whole, pa.concat_tables(halves))
    order = np.random.default_rng(1).permutation(ROWS)
    assert same(whole.take(order), measured(stage, pairs.take(order)))


@pytest.mark.parametrize("name", [n for n in MEASURING if issubclass(STAGES[n], Filter)])
def test_a_filter_gives_one_verdict_per_pair_and_drops_what_it_cannot_measure(name):
    """It keeps nothing whose columns are null, and has a reason for each pair it drops."""
    stage = make(name)
    pairs = stored(stage, table(stage))
    kept = pc.fill_null(pa.array(np.asarray(stage.keep(pairs)), pa.bool_()), False)
    assert len(kept) == ROWS and 0 < kept.true_count < ROWS
    assert len(stage.keep(pairs.slice(0, 0))) == 0
    dropped = pairs.filter(pc.invert(kept))
    reasons = stage.reason(dropped)
    assert reasons is None or len(reasons) == len(dropped)
    assert reasons is None or all(isinstance(r, str) and r for r in reasons.to_pylist())
    unknown = pa.table({n: pa.nulls(3, pairs[n].type) for n in pairs.column_names})
    assert not any(pa.array(np.asarray(stage.keep(unknown))).to_pylist())
    order = np.random.default_rng(2).permutation(ROWS)
    assert np.asarray(stage.keep(pairs.take(order))).tolist() == np.asarray(kept)[order].tolist()


def looks(stage: Selector, parts: list[pa.Table]) -> list[bool]:
    """Merge the sketches of all parts, look by look, and return every verdict."""
    states: tuple[np.ndarray, ...] = ()
    for _ in range(stage.passes):
        states = (*states, np.sum([stage.sketch(part, states) for part in parts], axis=0))
    return [verdict for part in parts for verdict in np.asarray(stage.keep(part, states)).tolist()]


@pytest.mark.parametrize("name", [n for n in MEASURING if issubclass(STAGES[n], Selector)])
def test_a_selector_decides_the_same_however_pairs_are_cut(name):
    """Merged sketches of parts, an empty one among them, give the verdicts of one table."""
    stage = make(name)
    pairs = stored(stage, table(stage))
    whole = looks(stage, [pairs])
    assert 0 < sum(whole) < ROWS
    assert looks(stage, [pairs.slice(0, 4), pairs.slice(0, 0), pairs.slice(4)]) == whole


@pytest.mark.parametrize("name", [n for n in MEASURING if issubclass(STAGES[n], Matcher)])
def test_a_matcher_puts_pairs_in_buckets(name):
    """Keys have a row, a bucket and a reason; pairs that could not be measured have none."""
    stage = make(name)
    pairs = stored(stage, table(stage))
    keys = stage.keys(pairs)
    assert keys.schema.field("row").type == pa.int64()
    assert keys.schema.field("bucket").type == pa.uint64()
    assert keys.schema.field("kind").type == pa.string()
    assert keys.num_rows > 0 and pc.max(keys["row"]).as_py() < ROWS
    empty = stage.keys(pairs.slice(0, 0))
    assert empty.num_rows == 0 and empty.schema == keys.schema
    unknown = pa.table({n: pa.nulls(3, pairs[n].type) for n in pairs.column_names})
    assert stage.keys(unknown).num_rows == 0
    halves = pa.concat_tables([stage.keys(pairs.slice(0, 7)), _moved(stage.keys(pairs.slice(7)))])
    key = [("row", "ascending"), ("kind", "ascending"), ("bucket", "ascending")]
    assert same(keys.sort_by(key), halves.sort_by(key))


def _moved(keys: pa.Table) -> pa.Table:
    return keys.set_column(keys.column_names.index("row"), "row", pc.add(keys["row"], 7))
