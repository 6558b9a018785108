"""One job has one chain of attempts; each request has a result of its own."""

from waiting import wait_until


def by_request(records):
    return {record["request_id"]: record for record in records}


def test_several_requests_one_attempt(daemon, standin):
    standin.fault(job="a", gate="g")
    first = daemon.cancel("a", request_id="r1")
    wait_until(lambda: standin.log(), "it is on the wire")
    others = [daemon.cancel("a", request_id="r2"), daemon.cancel("a", request_id="r3")]
    daemon.drop("a", b"")
    wait_until(lambda: daemon.call("stats")["accepted"]["spool"] == 1, "the file is taken")
    assert (first["coalesced"], [one["coalesced"] for one in others]) == (False, [True, True])
    standin.open("g")
    records = by_request(daemon.wait_records(4))
    assert {record["outcome"] for record in records.values()} == {"cancelled"}
    assert {record["attempts"] for record in records.values()} == {1}
    assert records["r1"]["coalesced_with"] is None
    assert [record["coalesced_with"] for name, record in records.items() if name != "r1"] == ["r1"] * 3
    assert len(standin.log()) == 1


def test_in_one_call(daemon, standin):
    answer = daemon.call("cancel", job_ids=["a", "b", "a", "a"])
    assert [one["coalesced"] for one in answer] == [False, False, True, True]
    assert len({one["request_id"] for one in answer}) == 4
    records = by_request(daemon.wait_records(4))
    assert records[answer[3]["request_id"]]["coalesced_with"] == answer[0]["request_id"]
    assert sorted(entry["job"] for entry in standin.log()) == ["a", "b"]


def test_every_waiting_client_hears(daemon, standin):
    standin.fault(job="a", gate="g")
    clients = [daemon.client() for _ in range(10)]
    calls = [client.send_call("cancel", {"job_id": "a", "wait": True}) for client in clients]
    wait_until(lambda: daemon.call("stats")["accepted"]["socket"] == 10, "all are accepted")
    standin.open("g")
    results = [client.result(call) for client, call in zip(clients, calls)]
    assert len({result["request_id"] for result in results}) == 10
    assert {result["outcome"] for result in results} == {"cancelled"}
    assert len(standin.log()) == 1


def test_a_finished_job_is_not_joined(daemon, standin):
    daemon.outcome("a")
    assert daemon.outcome("a")["coalesced_with"] is None
    assert len(standin.log()) == 2


def test_failures_are_shared_too(daemon, standin):
    standin.fault(job="a", gate="g", status=404)
    daemon.cancel("a", request_id="r1")
    daemon.cancel("a", request_id="r2")
    standin.open("g")
    records = by_request(daemon.wait_records(2))
    assert {record["outcome"] for record in records.values()} == {"not_found"}
    assert {record["error"]["code"] for record in records.values()} == {"JOB_001"}


def test_attempts_count_from_when_a_request_joined(start, standin):
    daemon = start(retry={"max_delay_ms": 1000})
    standin.fault(job="a", status=500, retry_after=1)
    daemon.cancel("a", request_id="r1")
    daemon.wait_item(lambda item: item["state"] == "waiting", "it waits", request_id="r1")
    assert daemon.cancel("a", request_id="r2")["coalesced"] is True
    records = by_request(daemon.wait_records(2))
    assert (records["r1"]["attempts"], records["r2"]["attempts"]) == (2, 1)
    assert [entry["status"] for entry in standin.log()] == [500, 200]


def test_the_leader_expires_and_the_next_goes_on(start, standin):
    daemon = start(retry={"max_attempts": 1000})
    standin.fault(job="a", status=500, times=None)
    leader = daemon.client()
    call = leader.send_call("cancel", {"job_id": "a", "request_id": "r1", "deadline_s": 1, "wait": True})
    wait_until(lambda: standin.log(), "it is on the wire")
    assert daemon.cancel("a", request_id="r2")["coalesced"] is True
    assert leader.result(call)["outcome"] == "expired"
    standin.clear()
    records = by_request(daemon.wait_records(2))
    assert records["r1"]["coalesced_with"] is None
    assert (records["r2"]["outcome"], records["r2"]["coalesced_with"]) == ("cancelled", None)


def test_a_follower_expires_alone(start, standin):
    daemon = start(retry={"max_attempts": 1000})
    standin.fault(job="a", status=500, times=None)
    daemon.cancel("a", request_id="r1")
    result = daemon.outcome("a", request_id="r2", deadline_s=1)
    assert (result["outcome"], result["coalesced_with"]) == ("expired", "r1")
    standin.clear()
    assert by_request(daemon.wait_records(2))["r1"]["outcome"] == "cancelled"


def test_the_leader_uses_up_its_attempts_and_the_next_goes_on(start, standin):
    daemon = start(retry={"max_attempts": 2, "max_delay_ms": 1000})
    standin.fault(job="a", status=500, retry_after=1)
    standin.fault(job="a", status=500)
    daemon.cancel("a", request_id="r1")
    daemon.wait_item(lambda item: item["state"] == "waiting", "it waits", request_id="r1")
    daemon.cancel("a", request_id="r2")
    records = by_request(daemon.wait_records(2))
    assert (records["r1"]["outcome"], records["r1"]["attempts"]) == ("failed", 2)
    assert (records["r2"]["outcome"], records["r2"]["attempts"]) == ("cancelled", 2)
    assert records["r2"]["coalesced_with"] is None
    assert [entry["status"] for entry in standin.log()] == [500, 500, 200]


def test_after_a_restart(start, standin):
    daemon = start(dispatch={"shutdown_grace_s": 0})
    standin.fault(job="a", gate="g", times=None)
    daemon.cancel("a", request_id="r1")
    daemon.cancel("a", request_id="r2")
    daemon.kill()
    daemon.start()
    assert daemon.cancel("a", request_id="r3")["coalesced"] is True
    before = len(standin.log())
    standin.open("g")
    records = by_request(daemon.wait_records(3))
    assert {record["outcome"] for record in records.values()} == {"cancelled"}
    assert records["r1"]["coalesced_with"] is None and records["r2"]["coalesced_with"] == "r1"
    assert len(standin.log()) <= before + 1 and standin.counts()["max_in_flight"] <= 2


def test_a_thousand_requests_for_one_job(daemon, standin):
    standin.fault(job="a", gate="g")
    daemon.cancel("a")
    daemon.drop("f", b"a\n" * 1000)
    wait_until(lambda: daemon.call("stats")["accepted"]["spool"] == 1000, "all are accepted")
    standin.open("g")
    records = daemon.wait_records(1001)
    assert {record["outcome"] for record in records} == {"cancelled"}
    assert len(standin.log()) == 1
