import threading

import pytest

from boneseg import memory_budget
from boneseg.errors import SeriesError, SettingsError

MB = 1 << 20


def test_one_file_above_the_whole_budget_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory_budget.READ_VARIABLE, "10")
    with pytest.raises(SeriesError, match=r"a\.dcm: would take 11 MB .* 10 MB are allowed.*set BONESEG_READ_MB higher"):  # noqa: SIM117
        with memory_budget.claim("a.dcm", 10 * MB + 1):
            pass
    with memory_budget.claim("a.dcm", 10 * MB):
        pass


def test_claims_wait_for_each_other_and_never_pass_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory_budget.READ_VARIABLE, "10")
    lock, now, most = threading.Lock(), 0, 0

    def read(size: int) -> None:
        nonlocal now, most
        for _ in range(50):
            with memory_budget.claim("x", size):
                with lock:
                    now += size
                    most = max(most, now)
                with lock:
                    now -= size

    threads = [threading.Thread(target=read, args=(size * MB,)) for size in (1, 3, 4, 6, 10, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert 0 < most <= 10 * MB


def test_a_share_comes_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory_budget.READ_VARIABLE, "10")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), memory_budget.claim("x", 9 * MB):
            raise ZeroDivisionError


def test_a_claim_within_a_claim_adds_up_and_does_not_wait_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory_budget.READ_VARIABLE, "10")
    with memory_budget.claim("x", 6 * MB):
        with memory_budget.claim("x", 4 * MB):
            pass
        with pytest.raises(SeriesError, match="11 MB"):  # noqa: SIM117
            with memory_budget.claim("x", 5 * MB):
                pass


@pytest.mark.parametrize("text", ["many", "-1", "0", "1.5"])
def test_a_budget_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(memory_budget.READ_VARIABLE, text)
    with pytest.raises(SettingsError, match=memory_budget.READ_VARIABLE):  # noqa: SIM117
        with memory_budget.claim("x", 1):
            pass
