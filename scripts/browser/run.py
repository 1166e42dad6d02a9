"""Shows the pages of this folder to a headless browser and waits for their verdict. Used by browser.sh.

    run.py PORT BROWSER FOLDER [SCREENSHOT]

The settings of the pages come as JSON on standard input. FOLDER is for the browser's profile.
"""

import http.server
import json
import pathlib
import subprocess
import sys
import threading

# How long everything may take.
SECONDS = 90
PAGES = {"/": "index.html", "/chat.html": "chat.html"}
HERE = pathlib.Path(__file__).parent


class Pages(http.server.BaseHTTPRequestHandler):
    """The pages, their settings, and where they say how it went."""

    settings = b""
    verdict = None
    decided = threading.Event()

    def do_GET(self):
        path = self.path.split("?")[0]
        if path in PAGES:
            self.answer("text/html; charset=utf-8", (HERE / PAGES[path]).read_bytes())
        elif path == "/settings.json":
            self.answer("application/json", self.settings)
        elif path == "/hold":
            # An image that keeps the page from having loaded until the verdict is there.
            self.decided.wait(SECONDS)
            self.answer("image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg"/>')
        else:
            self.send_error(404)

    def do_POST(self):
        Pages.verdict = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer("text/plain", b"")
        self.decided.set()

    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
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
    verdict = Pages.verdict
    if verdict is None:
        sys.exit(f"the page gave no verdict within {SECONDS} seconds; the browser says:\n{errors[-3000:]}")
    if not verdict["good"]:
        sys.exit(f"the page says: {verdict['error']}\nthe browser says:\n{errors[-3000:]}")
    print("both pages show, in this order:", *verdict["shown"], sep="\n  ")


main()
