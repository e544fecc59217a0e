"""Work left for after an answer."""

import asyncio

from services.common.afterwards import Afterwards, after_answer, current_afterwards


class TestAfterwards:
    def test_work_waits_for_its_time_and_keeps_its_order(self):
        afterwards, done = Afterwards(), []
        afterwards.leave(lambda: done.append("first"))
        afterwards.leave(lambda: done.append("second"))
        assert done == []
        afterwards.do()
        assert done == ["first", "second"]

    def test_work_that_comes_later_is_done_at_once(self):
        afterwards, done = Afterwards(), []
        afterwards.do()
        afterwards.leave(lambda: done.append("late"))
        assert done == ["late"]

    def test_work_that_leaves_work_has_it_done_at_once(self):
        afterwards, done = Afterwards(), []
        afterwards.leave(lambda: afterwards.leave(lambda: done.append("inner")))
        afterwards.do()
        assert done == ["inner"]

    def test_work_that_fails_is_logged_and_the_rest_is_done(self, caplog):
        afterwards, done = Afterwards(), []
        afterwards.leave(lambda: 1 / 0)
        afterwards.leave(lambda: done.append("rest"))
        afterwards.do()
        assert done == ["rest"]
        assert "failed" in caplog.text


class TestAfterAnswer:
    def test_outside_of_a_call_it_is_done_at_once(self):
        done = []
        after_answer(lambda: done.append(1))
        assert done == [1]

    async def test_tasks_of_a_call_leave_their_work_to_it(self):
        afterwards, done = Afterwards(), []
        current_afterwards.set(afterwards)

        async def task():
            after_answer(lambda: done.append(1))

        await asyncio.create_task(task())
        assert done == []
        afterwards.do()
        assert done == [1]
