"""h2spec against a listener, in front of a service and in front of the listener's own answer: no case may fail."""
import re

import lib

h2spec = lib.tool("h2spec")


def check(name, port):
    output = lib.run(h2spec, "--host", "127.0.0.1", "--port", port, "--timeout", 5, timeout=600, check=False)
    summary = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", output)
    if not summary:
        lib.case(name, "no summary:\n" + output[-2000:])
    elif summary[4] != "0" or int(summary[1]) < 140:
        failures = output[output.find("Failures:"):]
        lib.case(name, f"{summary[0]}\n{failures}")
    else:
        lib.case(f"{name}: {summary[0]}")


with lib.Origin(lib.Handler) as origin, lib.Outrider(f"""
outrider: v1
listeners:
  proxied: {{ address: "127.0.0.1:0" }}
  direct: {{ address: "127.0.0.1:0" }}
services: {{ origin: "{origin.address}" }}
routes:
  - {{ listeners: [proxied], to: origin }}
  - {{ listeners: [direct], respond: {{ status: 200, body: "hello" }} }}
$QUIET""") as proxy:
    check("a proxied service", proxy.port("proxied"))
    check("an answer of the listener", proxy.port("direct"))

lib.finish()
