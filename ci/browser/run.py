"""Opens the pages of this folder in a headless browser and waits for the result of the test. Used by browser.sh.

    run.py PORT BROWSER FOLDER [SCREENSHOT]

Reads the settings of the pages as JSON from standard input. FOLDER is the profile directory of the browser.
"""

import http.server
import json
import pathlib
import subprocess
import sys
import threading

# Timeout of the whole test.
SECONDS = 90
PAGES = {"/": "index.html", "/chat.html": "chat.html"}
HERE = pathlib.Path(__file__).parent


class Pages(http.server.BaseHTTPRequestHandler):
    """Serves the pages and their settings, and receives the result."""

    settings = b""
    result = None
    finished = threading.Event()

    def do_GET(self):
        path = self.path.split("?")[0]
        if path in PAGES:
            self.respond("text/html; charset=utf-8", (HERE / PAGES[path]).read_bytes())
        elif path == "/settings.json":
            self.respond("application/json", self.settings)
        elif path == "/hold":
            # An image that delays the page's load event until the result is received.
            self.finished.wait(SECONDS)
            self.respond("image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg"/>')
        else:
            self.send_error(404)

    def do_POST(self):
        Pages.result = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.respond("text/plain", b"")
        self.finished.set()

    def respond(self, content_type, body):
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    port, browser, folder, screenshot = (sys.argv[1:] + [""])[:4]
    Pages.settings = sys.stdin.buffer.read()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Pages)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={folder}",
        "--window-size=1000,600",
        f"--screenshot={screenshot}" if screenshot else "--dump-dom",
        f"http://127.0.0.1:{port}/",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, errors = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
    result = Pages.result
    if result is None:
        sys.exit(f"the page reported no result within {SECONDS} seconds; output of the browser:\n{errors[-3000:]}")
    if not result["good"]:
        sys.exit(f"the test failed: {result['error']}\noutput of the browser:\n{errors[-3000:]}")
    print("both pages show, in this order:", *result["shown"], sep="\n  ")


main()
