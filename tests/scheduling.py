"""Which of several processes runs which tests: files are shared out, and real parts then run one at a time.

``pytest -n 2`` asks this through ``conftest.py``. What ``tests/real`` starts (vLLM, Prometheus, a browser)
needs the machine for itself, so all of it goes to one process, once every other test is done.
"""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

ALONE = "tests/real/"


def is_alone(nodeid: str) -> bool:
    """Whether the test is among those that need the machine for themselves."""
    return nodeid.startswith(ALONE)


class RealOnesLast(LoadScopeScheduling):
    """Shares out the rest by file, and what is in folders of folders by folder, in the order of collection:
    what such tests have in common (a simulated world, a ledger) is dear to make.

    The nodes are xdist's controllers of its worker processes. A worker runs a test only once it knows the
    next, or that there is none: that is why those that are not needed for the end are told to stop.
    """

    def __init__(self, config: Any, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # the largest first would be what must come last

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = file.rpartition("/")[0]
        if is_alone(nodeid):
            return ALONE
        return folder if folder.count("/") > 1 else file

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        super().mark_test_complete(node, item_index, duration)
        for other in self.nodes:  # one of them may be waiting for this test
            if other is not node:
                self._reschedule(other)

    def remove_node(self, node: Any) -> str | None:
        work = self.assigned_work[node]
        for file in [file for file, tests in work.items() if all(tests.values())]:
            del work[file]  # else a crash would hand out files of which nothing is left to run
        crashed = super().remove_node(node)
        for other in self.nodes:
            self._reschedule(other)
        return crashed

    def _reschedule(self, node: Any) -> None:
        left = -1
        while len(self.workqueue) != left and not node.shutting_down:
            left = len(self.workqueue)
            others = [each for each in self.nodes if each is not node]
            if self._only_alone_is_left() and not all(each.shutting_down for each in others):
                node.shutdown()
            else:
                super()._reschedule(node)  # one file at most, of perhaps one test

    def _assign_work_unit(self, node: Any) -> None:
        if ALONE in self.workqueue:  # what a crashed worker leaves is put behind it
            self.workqueue.move_to_end(ALONE)
        if self._only_alone_is_left() and any(
            self._pending_of(self.assigned_work[each]) for each in self.nodes if each is not node
        ):
            return
        super()._assign_work_unit(node)

    def _only_alone_is_left(self) -> bool:
        return list(self.workqueue) == [ALONE]
