# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# What tests/observation/run can't check by itself. An assertion that fails is an exit status of 1.
import json
import re
import sys


def no_duplicates(pairs):
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), f"twice in an object: {names}"
    return dict(pairs)


def refuse(constant):
    raise AssertionError(f"not JSON: {constant}")


def load(path):
    return json.loads(open(path, encoding="utf-8").read(), object_pairs_hook=no_duplicates, parse_constant=refuse)


def vcpus_of(document):
    """The program's own document: (run, vCPU) -> what it says."""
    return {(n + 1, v["vcpu"]): v for n, run in enumerate(document["runs"]) for v in run["vcpus"]}


def is_number(value):
    return type(value) in (int, float)


def is_id(value):
    return type(value) is int and 0 < value < 2**32


def for_perfetto(path, elapsed_us=None):
    """What the importer of Perfetto's trace processor demands of Chrome's JSON, as of its v58: what it would
    refuse, drop, or show elsewhere than meant."""
    text = open(path, "rb").read()
    # That is how it knows the format; and bytes after the last brace, read by themselves, are an error.
    assert text.startswith(b'{"') and text.endswith(b"}"), "not a document alone"
    # Of \u it takes no surrogates; above ASCII it wants the characters themselves.
    assert not re.search(rb"\\u[dD][89a-fA-F]", text), "a surrogate"
    whole = load(path)
    # It looks for the events in an array of that name; other keys it skips, but this is to be a string.
    assert isinstance(whole["traceEvents"], list), "no events"
    assert whole["displayTimeUnit"] in ("ms", "ns"), whole["displayTimeUnit"]
    processes, threads, used, slices_of, last = set(), set(), set(), {}, 0
    for event in whole["traceEvents"]:
        assert isinstance(event, dict) and isinstance(event["ph"], str) and len(event["ph"]) == 1, event
        assert isinstance(event["name"], str) and event["name"], f"would be [No name]: {event}"
        assert is_id(event["pid"]), f"would be 0: {event}"
        # Only these don't need a time. A process' name needs no thread.
        if event["ph"] == "M":
            what, kind = event["name"].split("_", 1)
            assert what in ("process", "thread") and kind in ("name", "sort_index"), f"would be ignored: {event}"
            assert what == "process" or is_id(event["tid"]), event
            value = event["args"][kind]
            if kind == "sort_index":
                assert is_number(value), event
                continue
            assert isinstance(value, str) and value, event
            named = processes if what == "process" else threads
            key = event["pid"] if what == "process" else (event["pid"], event["tid"])
            assert key not in named, f"named twice: {event}"
            named.add(key)
            continue
        assert is_id(event["tid"]), f"would be the process' main thread's: {event}"
        assert isinstance(event.get("cat", ""), str) and isinstance(event.get("args", {}), dict), event
        # In us; to it a whole number of ns, rounded.
        assert is_number(event["ts"]) and event["ts"] >= 0, event
        begin = round(event["ts"] * 1000)
        track = (event["pid"], event["tid"])
        used.add(track)
        if event["ph"] == "i":
            # Any other scope is an error; these are the thread's, the process' and all.
            assert event.get("s", "t") in ("t", "p", "g"), event
            last = max(last, begin)
            continue
        # Of B and E it pairs the one with the last of the other; b, e and n need an id. We have neither.
        assert event["ph"] == "X", event
        assert is_number(event["dur"]) and event["dur"] >= 0, event
        slices_of.setdefault(track, []).append((begin, begin + round(event["dur"] * 1000), event["name"]))
        last = max(last, slices_of[track][-1][1])
    # Slices of one thread nest or are apart; what overlaps otherwise is put on a track of its own.
    for slices in slices_of.values():
        stack = []
        for begin, end, name in sorted(slices, key=lambda one: (one[0], -one[1])):
            while stack and stack[-1] <= begin:
                stack.pop()
            assert not stack or end <= stack[-1], f"overlaps: {name} {begin} {end}"
            stack.append(end)
    assert used <= threads and {pid for pid, _ in threads} == processes, "without a name"
    if elapsed_us is not None:
        # So that its us are us.
        assert int(elapsed_us) / 50 < last / 1000 <= int(elapsed_us), (last, elapsed_us)


def trace(path, document=None):
    whole = load(path)
    assert set(whole) == {"displayTimeUnit", "traceEvents", "otherData"}, whole.keys()
    tracks, events = {}, {}
    for event in whole["traceEvents"]:
        track = (event["pid"], event.get("tid"))
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index"), event
            if event["name"] == "thread_name":
                assert track not in tracks, f"two tracks: {event}"
                tracks[track] = event["args"]["name"]
            continue
        assert track in tracks, f"of no track: {event}"
        assert isinstance(event["ts"], float) and event["ts"] >= 0, event
        of_track = events.setdefault(track, [])
        assert not of_track or of_track[-1]["ts"] <= event["ts"], f"not in order: {event}"
        of_track.append(event)
        if event["ph"] == "X":
            assert event["cat"] == "hypercall" and event["dur"] >= 0, event
        else:
            assert (event["ph"], event["s"], event["cat"]) == ("i", "t", "timer"), event
            assert event["name"] in ("armed", "cancelled", "expired", "raised"), event
    assert events, "empty"
    if document is None:
        return
    vcpus = vcpus_of(load(document))
    assert {(pid, tid - 1) for pid, tid in tracks} == set(vcpus), tracks
    for (run, vcpu), said in vcpus.items():
        assert tracks[run, vcpu + 1] == f"vCPU {vcpu}"
        names = [event["name"] for event in events[run, vcpu + 1]]
        for name, wanted in (("armed", "armed"), ("expired", "fired"), ("raised", "fired")):
            assert names.count(name) == said[wanted], (name, names.count(name), said)
        assert names.count("VCPUOP_set_singleshot_timer") == said["armed"], said


NUMBER = r"-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|\+?Inf|NaN)"
LABELS = r'(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\n"])*")(?:,[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\n"])*")*'
SAMPLE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{({LABELS})?\}})? ({NUMBER})")
SUFFIXES = {"counter": {"_total"}, "histogram": {"_bucket", "_count", "_sum"}}


def metrics(path, document=None):
    """By the specification of OpenMetrics 1.0, as far as counters and histograms go."""
    text = open(path, encoding="utf-8", newline="").read()
    assert text.endswith("\n# EOF\n") and text.count("# EOF") == 1, "no end, or two"
    assert "\r" not in text and "\0" not in text
    types, samples, family, said, in_samples = {}, {}, None, set(), False
    for line in text[:-len("# EOF\n")].splitlines():
        meta = re.fullmatch(r"# (TYPE|HELP|UNIT) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)", line)
        if meta:
            kind, name, value = meta.groups()
            if name != family:
                assert name not in types, f"a family in two parts: {line}"
                assert kind == "TYPE", f"a family that doesn't begin by its type: {line}"
                family, said, in_samples = name, set(), False
                types[name] = value
                assert value in SUFFIXES, line
                assert not name.endswith(("_total", "_bucket", "_count", "_sum", "_created")), line
            assert not in_samples, f"after its samples: {line}"
            assert kind not in said, f"twice: {line}"
            said.add(kind)
            if kind == "UNIT":
                assert name.endswith("_" + value), line
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, f"neither a comment nor a sample: {line!r}"
        name, labels, value = sample.groups()
        in_samples = True
        assert family and name.startswith(family), f"of no family: {line}"
        assert name[len(family):] in SUFFIXES[types[family]], line
        pairs = re.findall(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"', labels or "")
        assert len({key for key, _ in pairs}) == len(pairs), f"a label twice: {line}"
        key = (name, tuple(sorted(pairs)))
        assert key not in samples, f"a sample twice: {line}"
        assert float(value) >= 0, line
        samples[key] = float(value)
    for family in (name for name, type in types.items() if type == "histogram"):
        buckets = {}
        for (name, labels), value in samples.items():
            if name == family + "_bucket":
                le = [value for key, value in labels if key == "le"]
                assert len(le) == 1, labels
                rest = tuple(pair for pair in labels if pair[0] != "le")
                buckets.setdefault(rest, []).append((float(le[0].replace("+Inf", "inf")), value))
        for labels, all_of in buckets.items():
            assert all_of == sorted(all_of), f"not in order: {labels} {all_of}"
            assert [count for _, count in all_of] == sorted(count for _, count in all_of), f"not cumulative: {all_of}"
            assert all_of[-1][0] == float("inf"), f"no +Inf: {labels}"
            assert samples[family + "_count", labels] == all_of[-1][1], labels
            assert (family + "_sum", labels) in samples, labels
    if document is None:
        return
    for (run, vcpu), wanted in vcpus_of(load(document)).items():
        labels = {"run": str(run), "served_by": "userspace", "vcpu": str(vcpu)}

        def get(name, **more):
            return samples[name, tuple(sorted((labels | more).items()))]

        assert get("vmm_timers_armed_total") == wanted["armed"] > 0
        assert get("vmm_timers_fired_total") == wanted["fired"] > 0
        assert get("vmm_timer_lateness_seconds_count") == wanted["fired"]
        assert get("vmm_timers_cancelled_total") == 0
        assert get("vmm_hypercalls_punted_total", hypercall="VCPUOP_set_singleshot_timer") == wanted["armed"]


def stats(path):
    for vcpu in vcpus_of(load(path)).values():
        own = vcpu["stats"]
        assert own["armed"] == vcpu["armed"] and own["fired"] == vcpu["fired"] and own["cancelled"] == 0, own
        assert sum(bucket["count"] for bucket in own["late"]) == own["fired"], own
        assert [bucket["up_to_ns"] for bucket in own["late"]] == [10**n for n in range(3, 9)] + [None], own
        timers = ("VCPUOP_set_singleshot_timer", "VCPUOP_stop_singleshot_timer")
        assert sum(own["hypercalls"][name] for name in timers) == vcpu["punted"], own


def crashing(guest, to):
    """The guest, with "sti; hlt" made an instruction that there isn't: it crashes when it first waits."""
    code = bytearray(open(guest, "rb").read())
    at = code.find(b"\xfb\xf4")
    assert at > 0, "no sti; hlt in the guest"
    while at >= 0:
        code[at:at + 2] = b"\x0f\x0b"
        at = code.find(b"\xfb\xf4", at + 2)
    open(to, "wb").write(code)


if __name__ == "__main__":
    {"for_perfetto": for_perfetto, "trace": trace, "metrics": metrics, "stats": stats, "crashing": crashing}[sys.argv[1]](*sys.argv[2:])
