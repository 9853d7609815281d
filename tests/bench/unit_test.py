#!/usr/bin/env python3
"""The parts that need no proxy: templates, the tools' output, statistics, tables, pictures."""
from __future__ import annotations

import json
import tempfile
import unittest
import xml.etree.ElementTree
from pathlib import Path

import balance
import cells
import chart
import curves
import peers
import report
from bench import write_json
from load import read_h2load, read_wrk
from peers import Invalid
from template import render

SMALL = cells.Cell("small", "load", "small", conns=2)


class Template(unittest.TestCase):
    def test_values_conditions_and_loops(self) -> None:
        text = ("a {{ n + 1 }} b\n% for i in range(n):\n  % if i == 0:\n  first\n  % elif i == 1:\n"
                "  second {{ i }}\n  % else:\n  more\n  % end\n% end\nlast")
        self.assertEqual(render(text, {"n": 3}), "a 4 b\n  first\n  second 1\n  more\nlast")

    def test_percent_within_a_line_is_text(self) -> None:
        self.assertEqual(render("use %[path] 5% x\n", {}), "use %[path] 5% x\n")

    def test_a_missing_end_is_refused(self) -> None:
        with self.assertRaises(ValueError):
            render("% if True:\nx\n", {})

    def test_every_peer_renders_every_cell_that_it_can_do(self) -> None:
        names = dict(port=1, up_port=2, up_host="127.0.0.1", certs="C", work="W",
                     endpoints=["127.0.0.1:2"])
        for peer in peers.all_peers():
            peer.binary = "/bin/true"
            for cell in cells.CELLS:
                if not peer.direct and not peer.unsupported(cell):
                    self.assertTrue(peer.command(cell, names), (peer.name, cell.name))
                    for text in peer.files(cell, names).values():
                        self.assertNotIn("{{", text)


class Tools(unittest.TestCase):
    H2LOAD = """finished in 2.00s, 4.50 req/s, 1.00KB/s
requests: 10 total, 10 started, 9 done, 9 succeeded, {failed} failed, {failed} errored, 0 timeout
status codes: 9 2xx, 0 3xx, 0 4xx, {failed} 5xx
traffic: 1.00KB (1024) total, 100B (100) headers (space savings 10.00%), 900B ({body}) data
                     min         max         mean         sd        +/- sd
time for request:      100us      2.00ms      1.50ms       10us    90.00%
"""

    def test_h2load(self) -> None:
        result = read_h2load(SMALL, self.H2LOAD.format(failed=0, body=900))
        self.assertEqual((result["requests"], result["seconds"], result["mean_us"]), (9, 2, 1500))
        self.assertEqual(result["errors"], [])

    def test_h2load_failures_and_short_bodies_are_errors(self) -> None:
        failed = read_h2load(SMALL, self.H2LOAD.format(failed=1, body=900))
        self.assertEqual(failed["errors"], ["failed: 1", "errored: 1", "5xx: 1"])
        short = read_h2load(SMALL, self.H2LOAD.format(failed=0, body=800))
        self.assertEqual(short["errors"], ["800 body bytes for 9 responses"])

    def wrk(self, size: int, status: int) -> str:
        return "x\nJSON " + json.dumps(dict(
            requests=100, seconds=2.0, bytes=size, p50_us=7, p99_us=9, mean_us=8.0,
            errors=dict(connect=0, read=0, write=0, status=status, timeout=0))) + "\n"

    def test_wrk(self) -> None:
        result = read_wrk(SMALL, self.wrk(100 * 250, 0))
        self.assertEqual((result["requests"], result["p99_us"], result["errors"]), (100, 9, []))

    def test_wrk_failures_and_wrong_sizes_are_errors(self) -> None:
        self.assertEqual(read_wrk(SMALL, self.wrk(100 * 250, 3))["errors"], ["status: 3"])
        for size in (100 * 99, 100 * 2200):
            self.assertIn("bytes per response", read_wrk(SMALL, self.wrk(size, 0))["errors"][0])

    def test_no_result_is_invalid(self) -> None:
        for read in (read_wrk, read_h2load):
            with self.assertRaises(Invalid):
                read(SMALL, "unable to connect")


# Two rounds each; the second of nginx and the third of outrider ran on a slow machine.
RUNS = [("nginx", 0, 20.0, 1.0), ("outrider", 0, 10.0, 1.0), ("h2o", 0, 16.0, 1.1),
        ("nginx", 1, 60.0, 1.3), ("outrider", 1, 12.0, 1.0), ("h2o", 1, 15.0, 1.0),
        ("nginx", 2, 24.0, 1.0), ("outrider", 2, 50.0, 1.5), ("h2o", 2, 10.0, 1.0)]


def measured() -> dict:
    runs = [dict(cell="a", peer=peer, round=round_, value=value, probe_s=probe, rps=1e6 / value)
            for peer, round_, value, probe in RUNS]
    runs += [dict(cell="a", peer="h2o", round=3, invalid="reset", probe_s=1.0)]
    runs += [dict(cell="a", peer="envoy", round=0, invalid="status:\n 5", probe_s=1.0),
             dict(cell="a", peer="pingora", skip="never")]
    return dict(started="2026-01-01T00:00:00Z", rounds=3, seconds=2, probe_best_s=1.0,
                machine=dict(cpus=2, cpu="X", kernel="6"), versions=dict(outrider="1", nginx="2"),
                cells=dict(a=dict(kind="load", unit="CPU µs/req", text="one")), runs=runs)


class Statistics(unittest.TestCase):
    def setUp(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "r.json")
            write_json(file, measured(), "runs")
            (self.cell,), self.lines = report.read([file])
            (self.twice,), _ = report.read([file, file])

    def test_slow_runs_do_not_count(self) -> None:
        self.assertEqual((self.cell.median("nginx"), self.cell.lowest("nginx")), (22, 20))
        self.assertEqual(self.cell.median("outrider"), 11)
        self.assertFalse(self.cell.doubtful("nginx"))

    def test_a_ratio_is_of_runs_of_one_round(self) -> None:
        # One round of three is steady: all count, 0.5, 0.2 and 2.08.
        self.assertEqual(self.cell.ratio("outrider", "nginx"), "0.50?")
        self.assertEqual(self.cell.ratio("outrider", "h2o"), "0.71")        # (10/16, 12/15) / 2
        self.assertEqual(self.twice.ratio("outrider", "h2o"), "0.71")
        self.assertEqual(self.cell.ratio("nginx", "nginx"), "1")
        self.assertEqual(self.cell.ratio("nginx", "envoy"), "–")

    def test_what_was_mostly_slow_is_doubtful(self) -> None:
        self.cell.runs["nginx"][0]["slow"] = True
        self.assertTrue(self.cell.doubtful("nginx"))
        self.assertEqual((self.cell.median("nginx"), self.cell.lowest("nginx")), (24, 20))

    def test_what_was_slow_throughout_is_doubtful(self) -> None:
        for run in self.cell.runs["nginx"]:
            run["slow"] = True
        self.assertTrue(self.cell.doubtful("nginx"))
        self.assertEqual(self.cell.median("nginx"), 24)
        self.assertEqual(self.cell.ratio("outrider", "nginx"), "0.50?")     # 0.5, 0.2, 2.08
        self.assertIn("| 24.0? |", report.cell_table(self.cell))

    def test_tables(self) -> None:
        table = report.cell_table(self.cell)
        self.assertIn("| peer | CPU µs/req | lowest | ÷ h2o | ÷ nginx | rounds | req/s |", table)
        self.assertIn("| outrider | 11.0 | 10.0 | 0.71 | 0.50? | 2/3 | 91,667 |", table)
        self.assertIn("- envoy: 1 of 1 runs invalid: status: 5", table)
        self.assertIn("- h2o: 1 of 4 runs invalid: reset", table)
        self.assertIn("- pingora: skipped: never", table)
        self.assertLess(table.index("| outrider"), table.index("| h2o"))
        overview = report.overview([self.cell])
        self.assertIn("| outrider | h2o | nginx | outrider ÷ best | outrider ÷ nginx |", overview)
        self.assertIn("| **11.0** / 10.0 | 15.0 / 10.0 | 22.0 / 20.0 | 0.71 (h2o) | 0.50? |",
                      overview)

    def test_numbers(self) -> None:
        self.assertEqual([report.number(v) for v in (None, 0.1234, 12.345, 123.4, 1234.5)],
                         ["–", "0.12", "12.3", "123", "1,234"])


def growth() -> dict:
    points = [dict(curve="routes", peer="outrider", round=r, x=x, cpu_us=10.0 + r, start_ms=x * 2.0,
                   rest_mib=3.0, probe_s=1.0) for r in range(3) for x in (1, 10, 100)]
    points += [dict(curve="body", peer="outrider", round=0, x=x, cpu_us=5.0, probe_s=1.0)
               for x in (0, 100)]
    points += [dict(curve="active", peer="outrider", round=0, x=5, invalid="closed", probe_s=1.0)]
    return dict(started="2026-01-01T00:00:00Z", peers=dict(outrider="1"), points=points,
                machine=dict(cpus=2, cpu="<X>", kernel="6"))


class Growth(unittest.TestCase):
    def test_tables(self) -> None:
        text = curves.tables(growth())
        self.assertIn("| 100 | 11.0 |", text)
        self.assertIn("| steepest: x^ | 0.00 |", text)
        self.assertIn("| steepest: x^ | 1.00 |", text)
        self.assertIn("- active, outrider, 5: closed", text)

    def test_picture(self) -> None:
        root = xml.etree.ElementTree.fromstring(curves.picture(growth()))
        drawn = root.findall("{http://www.w3.org/2000/svg}g")
        self.assertEqual(len(drawn), 4)             # CPU by body and by routes, start, memory
        for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
            for dot in line.get("points").split():
                x, y = map(float, dot.split(","))
                self.assertTrue(chart.LEFT <= x <= chart.WIDTH - chart.RIGHT, dot)
                self.assertTrue(chart.TOP <= y <= chart.HEIGHT - chart.BOTTOM, dot)

    def test_ticks(self) -> None:
        self.assertEqual(chart.decades(3, 2500), [1, 10, 100, 1000, 10000])
        self.assertEqual(chart.decades(1, 1000), [1, 10, 100, 1000])
        self.assertEqual(chart.steps(38.6), [0, 10, 20, 30, 40])
        self.assertEqual([chart.short(v) for v in (0.1, 500, 20000, 16e6)],
                         ["0.1", "500", "20k", "16M"])

    def test_axis(self) -> None:
        axis = chart.Axis([0.1, 1, 10, 100], 0, 300, True)
        self.assertEqual([axis.at(v) for v in (0, 1, 10, 100)], [0, 100, 200, 300])


class Balance(unittest.TestCase):
    def test_every_contender_renders(self) -> None:
        names = dict(port=1, up_port=2, up_host="127.0.0.1", certs="C", work="W",
                     endpoints=["127.0.0.1:2", "127.0.1.1:2"])
        for name, policy in balance.CONTENDERS:
            with self.subTest(peer=name, policy=policy):
                text = "".join(peers.Peer(name).files(balance.cell_for(policy), names).values())
                self.assertIn(policy, text)
                self.assertIn("127.0.1.1", text)

    def test_the_table_takes_the_middle_of_good_rounds(self) -> None:
        def run(p99: float) -> dict[str, object]:
            return {"peer": "a", "policy": "b", "p50_us": 2000, "p99_us": p99, "p99.9_us": 30000,
                    "slow_share": 0.05}
        rows = [run(4000), run(90000), run(5000), dict(peer="a", policy="b", invalid="no"),
                dict(peer="c", policy="d", skip="not\ninstalled")]
        text = balance.table(dict(runs=rows, rate=100))
        self.assertIn("| a | b | 2.0 | 5.0 | 30.0 | 5.0% | 3 of 4 |", text)
        self.assertIn("| c | d | – | – | – | – | not installed |", text)


if __name__ == "__main__":
    unittest.main()
