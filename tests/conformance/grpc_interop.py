"""gRPC's own interop client and server, the Go ones, with outrider between them, HTTP/2 on both sides: every case that
needs no credentials of its own and that this client and this server pass when nothing is between them (the Go server
fills in neither the server's id nor load reports)."""
import lib

CASES = """
empty_unary large_unary client_streaming server_streaming ping_pong empty_stream
timeout_on_sleeping_server cancel_after_begin cancel_after_first_response
status_code_and_message special_status_message custom_metadata unimplemented_method unimplemented_service
""".split()

client = lib.tool("grpc_interop_client")
server = lib.tool("grpc_interop_server")
port = lib.free_port()

with lib.program(server, "--port", port, "--use_tls=false", port=port), lib.Outrider(f"""
outrider: v1
listen: 127.0.0.1:0
services: {{ interop: "h2c://127.0.0.1:{port}" }}
routes: [{{ to: interop }}]
$QUIET""") as proxy:
    base = [client, "--use_tls=false", "--server_host", "127.0.0.1", "--server_port", proxy.port()]
    for name in CASES:
        with lib.attempt(name):
            lib.run(*base, "--test_case", name)
    with lib.attempt("rpc_soak"):
        lib.run(*base, "--test_case", "rpc_soak", "--soak_iterations", 200,
                "--soak_overall_timeout_seconds", int(lib.PATIENCE))
    with lib.attempt("channel_soak"):
        lib.run(*base, "--test_case", "channel_soak", "--soak_iterations", 50,
                "--soak_overall_timeout_seconds", int(lib.PATIENCE))

lib.finish()
