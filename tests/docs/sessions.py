"""A page's blocks run in order: its Python in one process, its commands in shells, its servers real.

What a page installs is installed already, or ``pip`` finds nothing of that name: it is kept from any index.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from authority import Authority
from etcd_server import EtcdServer, find_etcd, free_port
from pages import LANGUAGES, ROOT, Block, Command, blocks_of, commands_of, says

__all__ = ["Session"]

ENDED = "\x04ended"
"""What a process prints when it has done what it was told."""

TELL_CODE = f"code=$?; printf '{ENDED} %s\\n' $code; (exit $code)"
"""What has a shell say so, and leaves it the exit code for a command that asks for it."""

INTERPRETER = f"""
import json, sys
for told in sys.stdin:
    text, page, line = json.loads(told)
    exec(compile("\\n" * line + text, page, "exec"), globals())
    print({ENDED!r}, 0, flush=True)
"""


class Talker:
    """A process that is told what to do, and whose words are heard until it has done so."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def tell(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def hear(self) -> tuple[str, int]:
        """Give what was said until it had done what it was told, and the exit code of that."""
        assert self._process.stdout is not None
        heard = ""
        for line in self._process.stdout:
            said, ended, code = line.partition(ENDED)
            heard += said
            if ended:
                return heard, int(code)
        return heard, self._process.wait()

    def end(self) -> None:
        """End the process and all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


class Session:
    """The folder of a page, its servers, its Python and its terminals."""

    def __init__(self, page: Path, folder: Path, ending: ExitStack) -> None:
        self._page = page
        self._folder = folder
        self._ending = ending
        text = page.read_text()
        self._ports = {"29400": str(free_port())}
        if ":2379" in text.replace("https://127.0.0.1:2379", "") or "port=2379" in text:
            self._ports["2379"] = self._serve(EtcdServer())
        if "https://127.0.0.1:2379" in text:
            self._ports["https://127.0.0.1:2379"] = self._serve_by_tls()
        self._python: Talker | None = None
        self._terminals: list[Talker] = []
        self._printed = ""
        (folder / "examples").symlink_to(ROOT / "examples")

    def run(self) -> int:
        """Run the blocks, and give how many ran."""
        ran = 0
        blocks = blocks_of(self._page)
        for number, block in enumerate(blocks):
            if block.why_not_run:
                continue
            if block.file:
                self._write(block)
            elif block.mark == "prints":
                assert says(self.local(block.text), self._printed), f"{self._at(block)}; it printed:\n{self._printed}"
                self._printed = ""
            elif block.language == "python":
                self._run_python(block)
            elif block.mark == "in another terminal":
                assert blocks[number - 1].language == "console", f"{self._at(block)} stands beside nothing"
            elif block.language == "console":
                beside = [*blocks, block][number + 1]
                self._run_console(block, beside if beside.mark == "in another terminal" else None)
            ran += block.language in LANGUAGES
        return ran

    def local(self, text: str) -> str:
        """Put the servers of this session in the place of those that a page names."""
        if "https://127.0.0.1:2379" in self._ports:
            text = text.replace("https://127.0.0.1:2379", f"https://127.0.0.1:{self._ports['https://127.0.0.1:2379']}")
        text = re.sub(r"(?<=--host )10\.0\.0\.\d+", "127.0.0.1", text)
        for port in ("2379", "29400"):
            if port in self._ports:
                text = re.sub(rf"10\.0\.0\.\d+(?=:{port}\b)", "127.0.0.1", text)
                text = re.sub(rf'host="10\.0\.0\.\d+", port={port}\b', f'host="127.0.0.1", port={port}', text)
                text = re.sub(rf"\b{port}\b", self._ports[port], text)
        return text

    def _serve(self, server: EtcdServer) -> str:
        self._ending.enter_context(server)
        return server.endpoint.partition(":")[2]

    def _serve_by_tls(self) -> str:
        """Start an etcd that wants a certificate, and put the files for who connects into the folder."""
        authority = Authority(self._folder)
        server, _ = authority.issue("server", "127.0.0.1"), authority.issue("client", "trainer@jobs.example")
        return self._serve(
            EtcdServer(*server.as_server, "--client-cert-auth", "--trusted-ca-file", authority.ca, tls=True)
        )

    def _start(self, command: list[str]) -> Talker:
        scripts = os.pathsep.join([sysconfig.get_path("scripts"), str(find_etcd().parent), os.environ["PATH"]])
        own = ("ETHA_KVSTORE", "ETCD", "PYTEST", "PYTHON", "SLURM", "TORCHELASTIC")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        known = {"PATH": scripts, "COLUMNS": "120", "NO_COLOR": "1", "PIP_NO_INDEX": "1"}
        told = Talker(command, self._folder, inherited | known)
        self._ending.callback(told.end)
        return told

    def _terminal(self, number: int) -> Talker:
        if number == len(self._terminals):
            self._terminals.append(self._start(["bash"]))
        return self._terminals[number]

    def _at(self, block: Block) -> str:
        return f"{os.path.relpath(self._page, ROOT)}, line {block.line}"

    def _write(self, block: Block) -> None:
        text, path = self.local(block.text), self._folder / block.file
        if block.language != "diff":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        before = "".join(line[1:] for line in text.splitlines(keepends=True) if not line.startswith("+"))
        after = "".join(line[1:] for line in text.splitlines(keepends=True) if not line.startswith("-"))
        content = path.read_text()
        assert content.count(before) == 1, f"{self._at(block)} changes what is not in {block.file}"
        path.write_text(content.replace(before, after))

    def _run_python(self, block: Block) -> None:
        if self._python is None:
            self._python = self._start([sys.executable, "-c", INTERPRETER])
        self._python.tell(json.dumps([self.local(block.text), str(self._page), block.line - 1]) + "\n")
        heard, code = self._python.hear()
        self._printed += heard
        assert code == 0, f"{self._at(block)}:\n{heard}"

    def _run_console(self, block: Block, beside: Block | None) -> None:
        """Run a block's commands; those of the block beside it, where there is one, while the last of them goes on."""
        *first, last = commands_of(block)  # a block that has none is a mistake
        for command in first:
            self._check(block, command, *self._do(0, command))
        checking = self._begin(0, last)
        for command in commands_of(beside) if beside else ():
            assert beside is not None
            self._check(beside, command, *self._do(1, command))
        self._check(block, last, *checking())

    def _begin(self, terminal: int, command: Command) -> Callable[[], tuple[str, int]]:
        talker = self._terminal(terminal)
        talker.tell(f"{{ {self.local(command.text)}\n}} </dev/null\n{TELL_CODE}\n")
        return talker.hear

    def _do(self, terminal: int, command: Command) -> tuple[str, int]:
        return self._begin(terminal, command)()

    def _check(self, block: Block, command: Command, heard: str, code: int) -> None:
        where = f"{self._at(block)}: {command.text!r} ended with {code} and printed:\n{heard}"
        if command.printed:
            assert says(self.local(command.printed), heard), where
        else:
            assert code == 0, where
