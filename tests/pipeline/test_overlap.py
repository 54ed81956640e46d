"""Files are stored and moved while the model computes."""

from __future__ import annotations

import os
from pathlib import Path

from by_hand import Gate
from line import Line
from support import flow_of, paint_groups, tree, wait_until


def test_files_are_stored_and_moved_while_the_model_computes_the_next_batch(
    tmp_path: Path,
) -> None:
    gate = Gate()
    line = Line(tmp_path, gate, batch={"max_images": 4})
    paint_groups(line.config.inbox, 6)
    line.run()  # there is a fit to route with
    paint_groups(line.config.inbox, 3, seed=50)
    line.intake.scan(line.now_s)
    line.intake.settle(line.now_s)
    queue = line.intake.queue
    gate.sizes.clear()
    gate.closes = True  # one batch goes through, the next one stays
    flow = flow_of(line.library, line.reader)
    wait_until(lambda: flow.fill(queue, 0.0, None) or len(gate.sizes) == 2)
    flow.wait()

    batch = flow.take_done()
    assert batch is not None
    report = batch.end()

    still_computing = not gate.open.is_set() and flow.images > 0
    moved = {name for names in tree(line.config.target).values() for name in names}
    assert still_computing
    assert report.sorted == len(batch.candidates)
    assert {os.fsdecode(c.name) for c in batch.candidates} <= moved
    assert line.counts()["sorted"] == 18 + report.sorted
    gate.open.set()
    flow.close()
    line.close()
