from athena.events import EventLog, Tail, read_events


def test_a_tail_gives_each_event_once_and_waits_for_whole_lines(tmp_path):
    path = tmp_path / "events.jsonl"
    tail = Tail(path)
    assert list(tail) == []
    log = EventLog(path)
    log.emit("one", number=1)
    assert [event["number"] for event in tail] == [1]
    with path.open("ab") as file:
        file.write(b'{"event": "two"')
        file.flush()
        assert list(tail) == []
        file.write(b"}\n")
    assert [event["event"] for event in tail] == ["two"]
    assert [event["event"] for event in read_events(path)] == ["one", "two"]


def test_a_line_cut_by_a_kill_spoils_no_other(tmp_path):
    path = tmp_path / "events.jsonl"
    EventLog(path).emit("before")
    with path.open("ab") as file:
        file.write(b'{"event": "cut", "at\n[1]\n')
    EventLog(path).emit("after")
    assert [event["event"] for event in read_events(path)] == ["before", "after"]
