"""`export --to hub`: what will be seen by others is shown first, and a person agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbcli.cli.invocation import Invocation
from dbcli.cli.terminal.screen import Screen
from dbcli.errors import Refused, UsageError

if TYPE_CHECKING:
    from dbcli.workflows.sharing.export import ExportRequest
    from dbcli.workflows.sharing.publish import Bundle, Target


def publish(call: Invocation, request: ExportRequest, repo: str | None, *, public: bool) -> None:
    """Lays a run out, shows it, asks, and uploads it. Raises Refused (exit 6) where nobody agreed."""
    from dbcli.workflows.sharing.publish import bundled, find_target, send

    if request.out is not None:
        raise UsageError("--out is for files of your own; --to hub takes --repo.")
    layout = call.layout()
    name = call.wanted(repo, "--repo", "The name of the repository on the hub")
    # Where nobody can agree the hub is not asked either: the list alone is shown.
    target = find_target(name, public=public, offline=call.offline, ask=call.yes or call.may_ask)
    with bundled(layout, request, target, call.screen, offline=call.offline) as bundle:
        _show(call.screen, bundle, target)
        if target.api is None or not call.sure("Upload this"):
            raise Refused("Nothing was uploaded: nobody agreed.", hint="--yes agrees to what is listed")
        address = send(bundle, target)
    files = [{"path": path, "bytes": size} for path, size in bundle.files]
    call.screen.document({"run": bundle.run, "to": "hub", "url": address, "private": target.private, "files": files})
    call.screen.line(f"Uploaded {bundle.run} to {address}")


def _show(screen: Screen, bundle: Bundle, target: Target) -> None:
    """The files with their sizes, the words, and who will see them; on stderr, for it comes before any result."""
    who = "you and those you name (private)" if target.private else "everybody (public)"
    lines = [f"{target.repository} on the Hugging Face hub will be seen by {who}. It will hold:"]
    lines += [f"  {size:>14,} bytes  {path}" for path, size in bundle.files]
    lines += [f"  {name}: {words}" for name, words in bundle.words]
    lines.append("Your photos are not among it. Pictures and weights carry their prompts and settings inside.")
    screen.warn("\n".join(lines))
