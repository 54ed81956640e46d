"""int8 is used only where it is seen to leave the clusters as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from imgsortd.config.values import Precision
from imgsortd.networks.int8_checks import Int8Check, keep_check, newest_check, read_check
from imgsortd.pipeline import int8
from imgsortd.pipeline.int8 import Int8Trial, make_and_check
from imgsortd.records import Pixels, Vectors
from line import Line
from support import ColourExtractor, paint_groups, wait_until


class Engine:
    """Computes colours; its int8 takes the first ``wrong`` pictures for other colours."""

    engine_name = "test 1.0"

    def __init__(self, wrong: int = 0) -> None:
        self.precision = Precision.FP32
        self.wrong = wrong
        self.calibrated = 0
        self.trials = 0
        self._colours = ColourExtractor()

    def int8_file(self, folder: Path) -> Path:
        return folder / "int8-vgg16-test.xml"

    def make_int8(self, pixels: Sequence[Pixels], path: Path) -> None:
        self.trials += 1
        self.calibrated = len(pixels)
        path.write_text("<model/>")
        path.with_suffix(".bin").write_bytes(b"weights")

    def extract_exactly(self, pixels: Sequence[Pixels]) -> Vectors:
        return self._colours.extract(pixels)

    def extract_int8(self, path: Path, pixels: Sequence[Pixels]) -> Vectors:
        assert path.exists()
        features = self._colours.extract(pixels)
        features[: self.wrong] = features[: self.wrong, [1, 2, 0]]
        return features

    def use_int8(self, path: Path) -> None:
        assert path.exists()
        assert path.with_suffix(".bin").exists()
        self.precision = Precision.INT8


CENTERS = np.eye(3, dtype=np.float32)


def pictures(count: int) -> list[Pixels]:
    """Return pictures of three clear colours in turn."""
    made = []
    for number in range(count):
        picture = np.full((224, 224, 3), 30, dtype=np.uint8)
        picture[..., number % 3] = 200
        made.append(picture)
    return made


def test_it_is_used_where_98_of_100_held_out_pictures_keep_their_cluster(tmp_path: Path) -> None:
    engine = Engine(wrong=5)

    check = make_and_check(engine, pictures(384), CENTERS, tmp_path / "int8.xml")

    assert (engine.calibrated, check.n_images) == (128, 256)
    assert check.agreement == pytest.approx(251 / 256)
    assert check.passed
    assert engine.precision is Precision.INT8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["int8.bin", "int8.json", "int8.xml"]


def test_it_is_not_used_where_more_change_and_the_figure_is_kept(tmp_path: Path) -> None:
    engine = Engine(wrong=6)

    check = make_and_check(engine, pictures(384), CENTERS, tmp_path / "int8.xml")

    assert not check.passed
    assert check.min_cosine < 0.9
    assert engine.precision is Precision.FP32
    assert read_check(tmp_path / "int8.xml") == check
    assert [path.name for path in tmp_path.iterdir()] == ["int8.json"]


def test_a_quantisation_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    class Failing(Engine):
        def extract_int8(self, path: Path, pixels: Sequence[Pixels]) -> Vectors:
            raise RuntimeError("no such instruction")

    with pytest.raises(RuntimeError):
        make_and_check(Failing(), pictures(384), CENTERS, tmp_path / "int8.xml")

    assert list(tmp_path.iterdir()) == []


def test_a_damaged_check_is_as_good_as_none(tmp_path: Path) -> None:
    keep_check(tmp_path / "int8-a.xml", Int8Check(0.99, 0.998, 256, True, "test"))
    assert newest_check(tmp_path) == Int8Check(0.99, 0.998, 256, True, "test")
    (tmp_path / "int8-a.json").write_text("{")

    assert newest_check(tmp_path) is None


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nine pictures be enough for a trial."""
    monkeypatch.setattr(int8, "CALIBRATION_IMAGES", 3)
    monkeypatch.setattr(int8, "TRIAL_IMAGES", 9)


@pytest.fixture
def make_line(tmp_path: Path) -> Iterator[Callable[[], Line]]:
    lines: list[Line] = []

    def make() -> Line:
        model = {"engine": "openvino", "precision": "int8"}
        lines.append(Line(tmp_path, model=model))
        return lines[-1]

    yield make
    for line in lines:
        line.close()


def trial_of(line: Line, engine: Engine, on_error: Callable[[str, str], None]) -> Int8Trial:
    library = line.library
    in_force, extractor = library.in_force, library.extractor
    return Int8Trial(line.config, line.store, extractor, in_force, on_error, lambda _: engine)


def run_trial(line: Line, engine: Engine, errors: list[str]) -> Int8Trial:
    """Step a trial until it has nothing more to do for now."""
    trial = trial_of(line, engine, lambda *error: errors.append(" ".join(error)))
    now = [0.0]

    def step() -> bool:
        now[0] += 5
        trial.step(now[0])
        return not trial.is_running

    step()
    wait_until(step, what="the trial")
    return trial


@pytest.mark.usefixtures("few")
def test_a_library_tries_it_on_its_first_pictures(make_line: Callable[[], Line]) -> None:
    line, engine, errors = make_line(), Engine(), list[str]()
    paint_groups(line.config.inbox, each=4)
    line.run()

    trial = run_trial(line, engine, errors)

    assert (trial.is_over, errors) == (True, [])
    assert (engine.calibrated, engine.precision) == (3, Precision.INT8)
    assert newest_check(line.config.state_dir) == read_check(
        engine.int8_file(line.config.state_dir)
    )


@pytest.mark.usefixtures("few")
def test_what_has_failed_once_is_not_tried_again(make_line: Callable[[], Line]) -> None:
    line, errors = make_line(), list[str]()
    paint_groups(line.config.inbox, each=4)
    line.run()
    run_trial(line, Engine(wrong=6), errors)
    second = Engine()

    trial = run_trial(line, second, errors)

    assert (trial.is_over, second.trials) == (True, 0)


@pytest.mark.usefixtures("few")
def test_it_waits_for_clusters_and_for_pictures_enough(make_line: Callable[[], Line]) -> None:
    line, engine, errors = make_line(), Engine(), list[str]()
    paint_groups(line.config.inbox, each=2)
    line.run()

    trial = run_trial(line, engine, errors)

    assert (trial.is_over, engine.trials, errors) == (False, 0, [])


@pytest.mark.usefixtures("few")
def test_pictures_that_are_gone_put_it_off_with_a_word(make_line: Callable[[], Line]) -> None:
    line, engine, errors = make_line(), Engine(), list[str]()
    paint_groups(line.config.inbox, each=4)
    line.run()
    for path in list(line.config.target.rglob("*.png"))[:4]:
        path.unlink()

    trial = run_trial(line, engine, errors)

    assert (trial.is_over, engine.trials) == (False, 0)
    assert errors == ["int8 not tried fewer than 9 sorted pictures are readable"]


def test_it_is_not_tried_where_it_is_not_asked_for(tmp_path: Path) -> None:
    line, engine = Line(tmp_path), Engine()

    trial = trial_of(line, engine, lambda *_: None)

    assert trial.is_over
    line.close()
