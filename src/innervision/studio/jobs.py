"""The API of jobs: forms, the queue, what happens, and what comes of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Query, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from innervision.studio import files, runs
from innervision.studio.files import File
from innervision.studio.forms import Form, form
from innervision.studio.history import History
from innervision.studio.ledger import Ledger
from innervision.studio.networks import Networks
from innervision.studio.pictures import Shelf
from innervision.studio.places import Here
from innervision.studio.problems import Refused, missing, told
from innervision.studio.queue import Full, Jobs, Unready
from innervision.studio.runs import Job
from innervision.studio.settings import Settings
from innervision.studio.works import WORKS

BEAT = 15.0  # seconds of silence after which a stream says that it is there
_GLANCE = 2.0  # seconds between looks at a run that the command line works on

SANDBOX = "sandbox; default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; form-action 'none'"
"""A page that a command wrote is shown without scripts, and as nobody's: its pictures and its style alone."""


class Asked(BaseModel):
    """A job to be done."""

    model_config = ConfigDict(extra="forbid")

    command: str = Field(max_length=80, examples=["dream"])
    options: dict[str, Any] = Field(
        default_factory=dict,
        max_length=200,
        examples=[{"source": "sample-chelsea", "steps": 3, "octaves": 2, "size": 128}],
        description="by the names of the command's form; what is left out is as the command has it",
    )


class Made(BaseModel):
    """The id of what was made."""

    id: str


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A job as it is told; files, card and result are told of one job alone."""

    id: str
    command: str
    options: Mapping[str, Any]
    state: runs.State
    created: str
    started: str
    ended: str
    step: int | None
    of: int | None
    text: str
    error: str
    resumable: bool
    resume: runs.Resume
    """How: on from where it was, or anew."""
    own: bool
    """Whether the studio began it."""
    ahead: int | None
    """Jobs before it in the queue."""
    picture: File | None
    """That the job is known by: its result, else what it has come to."""
    files: tuple[File, ...] = ()
    card: Any = None
    result: Any = None


def router(settings: Settings, networks: Networks, pictures: Shelf) -> APIRouter:
    """Return the routes. The jobs begin and end with the application that takes them in."""
    ledger = Ledger(settings.runs)
    here = Here(networks, pictures)
    jobs = Jobs(ledger, here)

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        app.state.jobs = jobs
        await run_in_threadpool(jobs.start)
        try:
            yield
        finally:
            await run_in_threadpool(jobs.close)

    routes = APIRouter(tags=["jobs"], lifespan=life)

    def shown(job: Job, *, whole: bool = False) -> Shown:
        how = runs.resumable(job, ledger.folder) if job.state not in ("queued", "running") else ""
        more: dict[str, Any] = {}
        if whole:
            more = {
                "files": tuple(files.files(job, ledger.folder)),
                "card": runs.card_of(job, ledger.folder),
                "result": runs.clean(job.result),
            }
        names = (
            "id",
            "command",
            "state",
            "created",
            "started",
            "ended",
            "step",
            "of",
            "text",
            "error",
            "own",
        )
        return Shown(
            **{name: getattr(job, name) for name in names},
            options=runs.clean(job.options),
            resumable=bool(how),
            resume=how,
            ahead=jobs.ahead(job.id),
            picture=files.face(job, ledger.folder),
            **more,
        )

    def found(id: str) -> Job:
        job = ledger.get(id)
        if job is None:
            raise missing("job", id)
        return job

    @routes.get("/commands")
    def commands() -> list[Form]:
        """List the commands that can be started, each with its form."""
        return [form(name, here) for name in WORKS]

    @routes.post("/jobs", status_code=201, responses=told(400, 404, 409, 429))
    def submit(asked: Asked) -> Made:
        """Put a job into the queue; what it is asked to do is checked before."""
        with _states():
            return Made(id=jobs.submit(asked.command, asked.options).id)

    @routes.get("/jobs")
    def listing(most: Annotated[int, Query(ge=1, le=10_000)] = 500) -> list[Shown]:
        """List the jobs, and the runs that the command line made, the latest first."""
        return [shown(job) for job in ledger.listing()[:most]]

    @routes.get("/jobs/{id}", responses=told(404))
    def one(id: str) -> Shown:
        """Tell all of one job: its files and its card too."""
        return shown(found(id), whole=True)

    @routes.post("/jobs/{id}/stop", responses=told(404, 409))
    def stop(id: str) -> Shown:
        """Ask a job to stop and keep what it has; asked again, it is ended."""
        found(id)
        with _states():
            return shown(jobs.stop(id))

    @routes.post("/jobs/{id}/resume", responses=told(404, 409, 429))
    def resume(id: str) -> Shown:
        """Put a job into the queue again: on from where it was where that can be, else anew."""
        found(id)
        with _states():
            return shown(jobs.resume(id))

    @routes.delete("/jobs/{id}", status_code=204, responses=told(404, 409))
    def remove(id: str) -> None:
        """Remove a job, and all that it has written."""
        found(id)
        with _states():
            jobs.remove(id)

    @routes.get(
        "/jobs/{id}/events",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}, **told(404)},
    )
    async def events(id: str, last_event_id: Annotated[str, Header(max_length=100)] = "") -> Response:
        """Follow a job: `state`, `step`, `note` and `file` events as they come, and `end`."""
        await run_in_threadpool(found, id)
        history = await run_in_threadpool(ledger.history, id)
        stream = _stream(ledger, id, history, history.resumed(last_event_id))
        quiet = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=quiet)

    @routes.get(
        "/jobs/{id}/files/{name:path}",
        response_class=FileResponse,
        responses={
            200: {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
            **told(404),
        },
    )
    def file(
        id: str,
        name: str,
        v: Annotated[str, Query(max_length=80)] = "",
        if_none_match: Annotated[str, Header(max_length=200)] = "",
    ) -> Response:
        """Give a file of a job's list."""
        job = found(id)
        known = next((file for file in files.files(job, ledger.folder) if file.name == name), None)
        if known is None:
            raise missing("file of this job", name)
        return _given(ledger.folder / id / name, known, lasting=v == known.etag, asked=if_none_match)

    return routes


def _given(path: Path, file: File, *, lasting: bool, asked: str) -> Response:
    """Return a file as it goes out. lasting: whether its address changes with what it holds."""
    tag = f'"{file.etag}"'
    headers = {"ETag": tag, "Cache-Control": "private, max-age=86400" if lasting else "no-cache"}
    if tag in asked:
        return Response(status_code=304, headers=headers)
    kind, media = files.KINDS.get(path.suffix.lower(), ("", "application/octet-stream"))
    if kind == "page":
        headers["Content-Security-Policy"] = SANDBOX
    disposition = "inline" if kind else "attachment"
    return FileResponse(
        path, media_type=media, headers=headers, filename=path.name, content_disposition_type=disposition
    )


async def _stream(ledger: Ledger, id: str, history: History, after: int) -> AsyncGenerator[bytes]:
    """Yield a job's events as server-sent events; a first word opens the stream at once."""
    yield b"retry: 2000\n\n"
    beats = 0.0
    live = id in ledger.jobs
    async with contextlib.aclosing(history.follow(after, beat=BEAT if live else _GLANCE)) as events:
        async for event in events:
            if event is None and not live:
                await run_in_threadpool(ledger.refresh, id)
                beats += _GLANCE
                if beats < BEAT:
                    continue
                beats = 0.0
            yield history.message(event)


@contextlib.contextmanager
def _states() -> Iterator[None]:
    """Turn what does not go with a job's state into an answer."""
    try:
        yield
    except Full as error:
        raise Refused(429, str(error)) from None
    except Unready as error:
        raise Refused(409, str(error)) from None
